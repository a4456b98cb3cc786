"""The two-file format: what it may lack, and what is said where it is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encoder.evaluation.dataset import read_dataset
from interest.errors import BadInput
from interest.event import TYPE_CODES, EventType
from tests.unit.encoder.evaluation.logs import write

ITEMS = ["item_id|title", "a|Red mug", "b|", "c|蓝色 杯子"]
SEQUENCES = ["user_id|item_ids|unix_times", "u|a b|100 200", "v|c a c|5 5 6"]


@pytest.mark.parametrize("packed", [False, True])
def test_both_files_become_arrays(tmp_path: Path, packed: bool) -> None:
    data = read_dataset(write(tmp_path, ITEMS, SEQUENCES, packed=packed))
    assert data.item_ids == ["a", "b", "c"]
    assert data.titles == ["Red mug", "", "蓝色 杯子"]
    assert data.user_ids == ["u", "v"]
    assert data.starts.tolist() == [0, 2, 5]
    assert data.items.tolist() == [0, 1, 2, 0, 2]
    assert data.times_s is not None
    assert data.times_s.tolist() == [100, 200, 5, 5, 6]
    assert data.users().tolist() == [0, 0, 1, 1, 1]


def test_packing_does_not_change_the_fingerprint_and_content_does(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    plain = read_dataset(write(folders[0], ITEMS, SEQUENCES))
    packed = read_dataset(write(folders[1], ITEMS, SEQUENCES, packed=True))
    other = read_dataset(write(folders[2], ITEMS, [*SEQUENCES[:2], "v|c a b|5 5 6"]))
    assert plain.fingerprint == packed.fingerprint != other.fingerprint


def test_ids_alone_are_enough(tmp_path: Path) -> None:
    data = read_dataset(write(tmp_path, ["item_id", "a", "b"], ["user_id|item_ids", "u|b a"]))
    assert data.titles == ["", ""]
    assert data.times_s is None
    assert data.types.tolist() == [TYPE_CODES[EventType.CLICK]] * 2
    assert np.isnan(data.ratings).all()


def test_types_and_ratings_are_read_where_they_are(tmp_path: Path) -> None:
    lines = ["user_id|item_ids|types|ratings|note", "u|b a|cart return|nan 4.5|x"]
    data = read_dataset(write(tmp_path, ITEMS, lines))
    assert data.types.tolist() == [TYPE_CODES[EventType.CART], TYPE_CODES[EventType.RETURN]]
    assert np.isnan(data.ratings[0])
    assert data.ratings[1] == 4.5


@pytest.mark.parametrize(
    ("items", "sequences", "said"),
    [
        (["item_id|title", "a"], SEQUENCES, "items.tsv:2: 1 cells, the header has 2"),
        (["id|title", "a|x"], SEQUENCES, "items.tsv:1: the header lacks item_id"),
        (["item_id|item_id", "a|x"], SEQUENCES, "names item_id twice"),
        ([*ITEMS, "a|again"], SEQUENCES, "a stands there twice"),
        ([*ITEMS, "|x"], SEQUENCES, "items.tsv:5: an id has 1 to 256 characters"),
        (["item_id|title"], SEQUENCES, "items.tsv is empty"),
        ([], SEQUENCES, "items.tsv is empty"),
        (ITEMS, ["user_id|item_ids", "u|a d"], "sequences.tsv:2: item d is not in items.tsv"),
        (ITEMS, ["user_id|item_ids", "u|"], "sequences.tsv:2: no item_ids"),
        (ITEMS, ["user_id|item_ids", "u|a", "u|b"], "u stands there twice"),
        (ITEMS, [SEQUENCES[0], "u|a b|100"], "sequences.tsv:2: 1 unix_times for 2 item_ids"),
        (ITEMS, [SEQUENCES[0], "u|a b|200 100"], "unix_times go back"),
        (ITEMS, [SEQUENCES[0], "u|a b|1 soon"], "unix_times cannot be read"),
        (ITEMS, [SEQUENCES[0], "u|a|1392422400000000"], "not milliseconds"),
        (ITEMS, ["user_id|item_ids|types", "u|a|bought"], "types cannot be read"),
        (ITEMS, ["user_id|item_ids|types", "u|a|impression"], "one of view click"),
        (ITEMS, ["user_id|item_ids|ratings", "u|a|6"], "ratings are numbers from 0 to 5"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(
    tmp_path: Path, items: list[str], sequences: list[str], said: str
) -> None:
    write(tmp_path, items, sequences)
    with pytest.raises(BadInput) as caught:
        read_dataset(tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no folder"):
        read_dataset(tmp_path / "none")
    with pytest.raises(BadInput, match=r"items\.tsv: No such file"):
        read_dataset(tmp_path)
    write(tmp_path, ITEMS, SEQUENCES, packed=True)
    packed = tmp_path / "sequences.tsv.gz"
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(BadInput, match=r"sequences\.tsv\.gz is damaged"):
        read_dataset(tmp_path)
    packed.write_bytes(b"no gzip")
    with pytest.raises(BadInput, match=r"sequences\.tsv\.gz is damaged"):
        read_dataset(tmp_path)
    packed.unlink()
    (tmp_path / "sequences.tsv").write_bytes(b"user_id\titem_ids\n\xff\xfe\ta\n")
    with pytest.raises(BadInput, match=r"sequences\.tsv:2: not UTF-8"):
        read_dataset(tmp_path)
