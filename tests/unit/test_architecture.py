"""The cuts of the tree, read from the imports themselves."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MIDDLE = {"streams", "encoder", "store", "interest_api"}
ALLOWED = {
    "interest": {"interest"},
    **{name: {"interest", name} for name in MIDDLE},
    "interest_cli": {"interest", "interest_cli", *MIDDLE},
}
#: Heavy or exchangeable libraries, and the only places that know them.
CONFINED = {
    "faust": {"streams"},
    "mode": {"streams"},
    "aiokafka": {"streams"},
    "torch": {"encoder"},
    "transformers": {"encoder"},
    "redis": {"store/redis_link.py", "store/redis_vectors.py", "interest_cli/services.py"},
    "qdrant_client": {"store/qdrant_items.py"},
    "numkong": {"store/exact_scan.py"},
    "cryptography": {"store/aes_sealer.py"},
    "fastapi": {"interest_api"},
    "uvicorn": {"interest_api"},
    "typer": {"interest_cli"},
    "pydantic_settings": {"interest_cli"},
}
STANDARD_FOR_INTEREST = {"interest", "msgspec", "numpy", "xxhash"}


def modules() -> Iterator[tuple[str, str, ast.Module]]:
    """Give (path from the root, dotted name, tree) of every module of ours."""
    for package in ALLOWED:
        for path in sorted((ROOT / package).rglob("*.py")):
            relative = path.relative_to(ROOT)
            name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
            yield relative.as_posix(), name, ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.AST, *, at_import_time: bool = False) -> Iterator[str]:
    """Give dotted names of what a module imports; optionally only what runs on import."""
    for node in ast.iter_child_nodes(tree):
        if at_import_time and (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        ):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imported(node, at_import_time=at_import_time)


def test_imports_flow_one_way() -> None:
    wrong = [
        f"{path} imports {name}"
        for path, module, tree in modules()
        for name in imported(tree)
        if name.split(".")[0] in ALLOWED and name.split(".")[0] not in ALLOWED[module.split(".")[0]]
    ]
    assert not wrong


@pytest.mark.parametrize("library", CONFINED)
def test_each_library_is_known_in_its_place_only(library: str) -> None:
    wrong = [
        path
        for path, module, tree in modules()
        if any(name.split(".")[0] == library for name in imported(tree))
        and not {path, module.split(".")[0]} & CONFINED[library]
    ]
    assert not wrong


def test_the_vocabulary_needs_nothing_but_numpy_msgspec_and_xxhash() -> None:
    import sys

    wrong = [
        f"{path} imports {name}"
        for path, module, tree in modules()
        if module.split(".")[0] == "interest"
        for name in imported(tree)
        if name.split(".")[0] not in sys.stdlib_module_names | STANDARD_FOR_INTEREST
    ]
    assert not wrong


def test_no_module_imports_itself_through_others() -> None:
    names = {name for _, name, _ in modules()}
    graph = {
        name: {found for found in imported(tree, at_import_time=True) if found in names} - {name}
        for _, name, tree in modules()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_the_docs_name_every_topic_and_metric() -> None:
    from interest.metrics import METRICS
    from interest.settings import Settings
    from streams.topics import TopicNames

    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    names = TopicNames.of(Settings())
    expected = [getattr(names, field) for field in names.__struct_fields__]
    expected += [spec.name for spec in METRICS]
    missing = [name for name in expected if not re.search(rf"\b{re.escape(name)}\b", text)]
    assert not missing
