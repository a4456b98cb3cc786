"""Folders of indexes in process."""

from __future__ import annotations

from pathlib import Path

from interest_cli.wiring import private_folder


async def test_a_folder_goes_with_its_owner_and_a_killed_ones_with_the_next(tmp_path: Path) -> None:
    killed = tmp_path / "interest-index-killed"
    killed.mkdir()
    (killed / "owner.lock").write_bytes(b"")
    foreign = tmp_path / "interest-index-of-somebody-else"
    foreign.mkdir()  # without a lock it is none of ours
    async with private_folder(tmp_path) as first, private_folder(tmp_path) as second:
        assert first.exists()
        assert second.exists()
        assert not killed.exists()
    assert [path.exists() for path in (first, second, foreign)] == [False, False, True]
