"""A bundle as a folder: what comes back, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from encoder.bundle_folder import (
    FEATURES,
    SEQUENCE,
    SPARSE,
    BundleParts,
    load_bundle_folder,
    save_bundle_folder,
)
from encoder.factory import load_encoders
from encoder.loading import load_text_encoder
from encoder.parts import JoinedUserEncoder
from encoder.sequence_weights import loaded_sequence, save_sequence
from encoder.sparse_fit import described, fit_sparse
from encoder.text_features import fit_text_features, save_text_features
from interest.bundle import (
    BundleConfig,
    FeatureWeights,
    ModelBundle,
    PathWeights,
    RetrievalPaths,
    TextModel,
    TextPart,
)
from interest.bundle_file import NAME, find_bundles, read_bundle
from interest.errors import BadInput
from interest.item import EncodedItem, Item
from interest.settings import Settings
from tests.unit.encoder.test_sequence_model import DIM, lively
from tests.unit.encoder.tiny_models import Tiny
from tests.unit.encoder.windows import window

TITLES = ["red mug", "blue cup", "brass lamp", "red lamp", "blue mug"]


def a_bundle(text_model: TextModel, *, sequence: bool = True) -> BundleParts:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, text_model.dim)).astype(np.float32)
    features = fit_text_features(vectors, TITLES, n_dense=3, n_terms=2, seed=0)
    loaded = loaded_sequence(lively(n_items=1, text_dim=features.dim), ("lamp",))
    items = [Item(item_id=f"i{n}", title=title) for n, title in enumerate(TITLES)]
    sparse = fit_sparse(items, np.array([0, 0, 1, 1]), np.array([0, 3, 0, 3]))
    weights = PathWeights(terms=1.0, links=0.5)
    config = BundleConfig(
        user_encoder="sequence" if sequence else "decay",
        text_model=text_model,
        features=FeatureWeights(fingerprint=features.fingerprint, dim=features.dim),
        sequence=replace(loaded.described, text=TextPart(dim=3, share=0.3)) if sequence else None,
        sparse=described(sparse, terms_decay=0.8, links_decay=0.5),
        paths=RetrievalPaths(hybrid=weights, rerank=weights),
        licences=("titles: made up",),
    )
    return BundleParts(ModelBundle(config=config), features, loaded if sequence else None, sparse)


@pytest.fixture
def text_model(tiny: Tiny) -> TextModel:
    return load_text_encoder(str(tiny("bert")), device="cpu").described


@pytest.fixture
def folder(tmp_path: Path, text_model: TextModel) -> Path:
    save_bundle_folder(tmp_path / "bundle", a_bundle(text_model))
    return tmp_path / "bundle"


def test_a_bundle_comes_back_whole_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    first = load_bundle_folder(folder)
    moved = shutil.move(folder, tmp_path / "other name")
    again = load_bundle_folder(Path(moved))
    assert again.bundle == first.bundle
    assert again.bundle.model_id == first.bundle.model_id
    assert again.bundle.dim == DIM + 3
    assert again.sequence is not None
    assert again.sequence.item_ids == ("lamp",)
    assert [path.name for path in find_bundles(tmp_path)] == ["other name"]
    assert list(find_bundles(Path(moved))) == [Path(moved)]


def test_a_folder_that_exists_is_not_written_over_and_a_failure_leaves_none(
    folder: Path, tmp_path: Path, text_model: TextModel
) -> None:
    with pytest.raises(BadInput, match="exists"):
        save_bundle_folder(folder, a_bundle(text_model))
    with pytest.raises(BadInput, match="cannot be written"):
        save_bundle_folder(tmp_path / "no" / "where", a_bundle(text_model))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_worker_s_encoders_run_with_any_bundle(
    folder: Path, tmp_path: Path, text_model: TextModel
) -> None:
    encoders = load_encoders(Settings(bundle=str(folder), window_max_events=3))
    encoders.warm()
    assert isinstance(encoders.users, JoinedUserEncoder)
    assert encoders.bundle.config.window.max_events == 50, "the bundle decides"
    assert encoders.bundle.dim == encoders.items.dim == encoders.users.dim == DIM + 3
    save_bundle_folder(tmp_path / "decay", a_bundle(text_model, sequence=False))
    decay = load_encoders(Settings(bundle=str(tmp_path / "decay")))
    item = Item(item_id="mug", title="red mug")
    vector = decay.items.encode_items([item])[0]
    user = decay.users.encode(
        [window(("click", "mug"))], {"mug": EncodedItem(item=item, vector=vector)}
    )
    assert np.allclose(user[0], vector, atol=1e-6)
    assert decay.bundle.dim == len(vector) == decay.bundle.config.features.dim  # type: ignore[union-attr]


def test_a_text_model_that_is_another_is_refused(folder: Path, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"not the one .* INTEREST_TEXT_MODEL"):
        load_encoders(Settings(bundle=str(folder), text_model=str(tiny("roberta"))))
    elsewhere = shutil.copytree(tiny("bert"), tmp_path / "elsewhere")
    assert load_encoders(Settings(bundle=str(folder), text_model=str(elsewhere)))


def changed(folder: Path, change: Callable[[dict[str, object]], None]) -> None:
    content = json.loads((folder / NAME).read_text())
    change(content)
    (folder / NAME).write_text(json.dumps(content))


def test_another_format_is_refused_by_its_number(folder: Path) -> None:
    changed(folder, lambda c: c["config"].update(format=7, unheard_of=1))  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match=r"format 7, and this version reads 1"):
        read_bundle(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["config"]["decay"].update(position_decay=0.5),
        lambda c: c["config"]["window"].update(max_events=5),
        lambda c: c.update(model_id="0" * 16),
    ],
)
def test_a_description_that_was_changed_is_refused(
    folder: Path, change: Callable[[dict[str, object]], None]
) -> None:
    changed(folder, change)
    with pytest.raises(BadInput, match="was changed"):
        read_bundle(folder)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[1]", b'{"config": {"format": 1}}'])
def test_what_is_no_description_is_refused(folder: Path, content: bytes) -> None:
    (folder / NAME).write_bytes(content)
    with pytest.raises(BadInput, match="damaged"):
        read_bundle(folder)


def test_a_folder_that_is_no_bundle_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="interest train"):
        read_bundle(tmp_path)


@pytest.mark.parametrize("name", [FEATURES, SEQUENCE, SPARSE])
def test_one_byte_that_differs_is_refused(folder: Path, name: str) -> None:
    raw = bytearray((folder / name).read_bytes())
    raw[-2] ^= 1
    (folder / name).write_bytes(raw)
    with pytest.raises(BadInput, match="damaged"):
        load_bundle_folder(folder)


@pytest.mark.parametrize("name", [FEATURES, SEQUENCE, SPARSE])
def test_a_file_that_is_missing_or_cut_is_refused(folder: Path, name: str) -> None:
    raw = (folder / name).read_bytes()
    (folder / name).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(BadInput, match="copy the bundle again"):
        load_bundle_folder(folder)
    (folder / name).unlink()
    with pytest.raises(BadInput, match="copy the bundle again"):
        load_bundle_folder(folder)


def test_weights_of_another_dimension_are_refused(folder: Path) -> None:
    features = load_bundle_folder(folder).features
    assert features is not None
    save_sequence(folder / SEQUENCE, lively(n_items=1, dim=64, text_dim=features.dim), ["lamp"])
    with pytest.raises(BadInput, match="64 dimensions, and its bundle says 32"):
        load_bundle_folder(folder)
    save_sequence(folder / SEQUENCE, lively(n_items=1, text_dim=9), ["lamp"])
    with pytest.raises(BadInput, match="text of 9 numbers"):
        load_bundle_folder(folder)
    save_text_features(folder / FEATURES, features._replace(axes=features.axes[:, :2]))
    with pytest.raises(BadInput, match="dimensions, and its bundle says"):
        load_bundle_folder(folder)
