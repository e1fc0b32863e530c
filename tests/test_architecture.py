"""Who may import whom, as the table of folders in the documentation says."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"curate", "filters", "trainer", "flows", "infra", "tests"}
MAY_IMPORT = {
    "filters": {"filters"},
    "trainer": {"trainer"},
    "curate": {"curate", "filters"},
    "flows": {"flows", "curate", "trainer"},
}
# The command puts the parts together, so its subcommands may call any of them.
COMPOSITION_ROOT = ROOT / "curate" / "commands"
HEAVY = {"torch", "open_clip", "faiss", "pyspark", "prefect", "img2dataset"}


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_point_the_right_way(folder: str) -> None:
    for path in sources(folder):
        if COMPOSITION_ROOT in path.parents:
            continue
        wrong = (imported(path) & OURS) - MAY_IMPORT[folder]
        assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def test_the_check_sees_a_wrong_import(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text("def f():\n    from curate.pool import open_pool\n    return open_pool\n")
    assert (imported(file) & OURS) - MAY_IMPORT["filters"] == {"curate"}


@pytest.mark.parametrize("folder", ["curate", "filters"])
def test_heavy_packages_are_imported_where_they_are_used(folder: str) -> None:
    for path in sources(folder):
        heavy = imported(path, top_level_only=True) & HEAVY
        assert not heavy, f"{path.relative_to(ROOT)} imports {', '.join(sorted(heavy))} at its top"


@pytest.mark.parametrize("path", [p for f in MAY_IMPORT for p in sources(f)], ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


def test_nothing_is_unpickled_but_our_own_tasks() -> None:
    allowed = {ROOT / "curate" / "engines" / "spark.py"}
    for path in (p for folder in MAY_IMPORT for p in sources(folder)):
        assert path in allowed or not imported(path) & {"pickle", "dill", "marshal", "shelve"}, path


def test_python_is_new_enough() -> None:
    assert sys.version_info >= (3, 11)
