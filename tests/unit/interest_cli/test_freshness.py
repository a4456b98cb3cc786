"""`interest freshness`, from the files of a shop to figures and a plot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from interest.errors import BadInput
from interest_cli.main import app

#: Where it lies beside the checkout.
REES46 = Path(__file__).parents[4] / "shared/data/rees46/2019-Oct_first5k.csv.gz"
_KINDS = ("mug.red", "tea.green", "lamp.brass")
_HEADER = (
    "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twenty users who look at three things of one kind, a minute later at another kind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lines = [_HEADER]
    for user in range(20):
        for n in range(6):
            kind = (user + n // 3) % 3
            time = f"2019-10-01 {user:02}:{n // 3:02}:{n % 3:02} UTC"
            item = f"{kind}{(user * 2 + n) % 6}"
            lines.append(f"{time},view,{item},9{kind},{_KINDS[kind]},,2.50,u{user},s{user}")
    lines += [
        "2019-10-01 23:00:00 UTC,wish,1,9,,,1.00,u1,s1",
        "yesterday,view,1,9,,,1.00,u1,s1",
        "2019-10-01 23:00:00 UTC,cart,77,95,,acme,,u1,s1",
        "2019-10-01 23:30:00 UTC,remove_from_cart,77,95,,,1.00,u1,",
    ]
    (tmp_path / "log.csv").write_text("\n".join([*lines, ""]))
    assert "dropped 2 lines: malformed" in run("convert", "rees46", "log.csv", "out")
    return tmp_path


def run(*words: str) -> str:
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


LOG = ["freshness", "out/events.jsonl.gz", "--items", "out/items.jsonl.gz"]


def test_fresh_vectors_gain_where_interests_change(shop: Path) -> None:
    said = run(
        *LOG, "--types", "view", "--delays", "0s,1m", "--rows", "title-terms",
        "--out", "found.json", "--plot", "found.svg",
    )  # fmt: skip
    found = json.loads((shop / "found.json").read_text())
    assert found["n_users"] == 20
    fresh, stale = found["lines"]
    assert (fresh["schedule"], stale["schedule"]) == ("0s", "1m")
    assert fresh["figures"]["new_ndcg@10"] > stale["figures"]["new_ndcg@10"]
    gain = next(one for one in found["comparisons"] if one["over"] == "new")
    assert gain["low"] > 0
    assert f"{gain['mean']:+.4f}" in said
    assert (shop / "found.svg").read_text().count("<svg") == 1


def test_rows_that_learn_from_events_learn_before_the_split(shop: Path) -> None:
    words = [*LOG, "--refreshes", "event,day,never", "--rows", "co-occurrence"]
    with pytest.raises(BadInput, match="learns from events"):
        run(*LOG, "--refreshes", "event", "--rows", "co-occurrence")
    with pytest.raises(BadInput, match="before --since"):
        run(*words, "--since", "2019-10-01")
    with pytest.raises(BadInput, match="nothing to ask for"):
        run(*words, "--since", "2019-10-02")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--delays", "0s", "--refreshes", "day"], "either --delays or --refreshes"),
        ([], "either --delays or --refreshes"),
        (["--delays", "soon"], "no time"),
        (["--refreshes", "never"], "name --since"),
        (["--delays", "0s", "--types", "look"], "'look' is not a valid EventType"),
        (["--delays", "0s", "--rows", "best"], "no row best"),
        (["--delays", "0s", "--plot", "no/such/plot.svg"], "is no folder"),
    ],
)
def test_wrong_input_is_one_line(shop: Path, words: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        run(*LOG, *words)


def test_a_log_needs_its_catalogue(shop: Path) -> None:
    with pytest.raises(BadInput, match="--items FILE"):
        run("freshness", "out/events.jsonl.gz", "--delays", "0s")


def test_titles_are_what_the_log_says_of_a_product(shop: Path) -> None:
    import gzip

    lines = gzip.decompress((shop / "out" / "items.jsonl.gz").read_bytes()).splitlines()
    titles = {item["item_id"]: item["title"] for item in map(json.loads, lines)}
    assert titles["00"] == "mug red"
    assert titles["77"] == "category 95"


@pytest.mark.skipif(not REES46.exists(), reason=f"the data set is not at {REES46}")
def test_in_a_real_shop_a_minute_costs_clearly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run("convert", "rees46", str(REES46), "out")
    words = ["--types", "view", "--delays", "0s,1m", "--rows", "title-terms"]
    run(*LOG, *words, "--out", "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["n_queries"], found["n_new"]) == (3156, 1864)
    assert all(one["low"] > 0.03 for one in found["comparisons"])
