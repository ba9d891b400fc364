"""Who may import whom, where import-linter does not look: single-file plugins; and the house's sizes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLUGINS = sorted((ROOT / "plugins").glob("*/streamgan_*.py"))
OWN = sorted(path for folder in ("streamgan", "training", "plugins", "tests") for path in (ROOT / folder).rglob("*.py"))
SHIPPED = [path for path in OWN if "tests" not in path.relative_to(ROOT).parts]
LONGEST = {"loop.py": 120}
"""Lines of a function; the training loop may be longer, so that it reads from top to bottom."""


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that a source imports, with the names taken from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """Every function of a source, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.stem)
def test_plugins_import_only_the_stable_surface(path: Path) -> None:
    for name in imports(ast.parse(path.read_text())):
        allowed = not name.split(".")[0].startswith("streamgan") or name.startswith("streamgan.api")
        assert allowed, f"{path.name} imports {name}; a plugin may import only streamgan.api"


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").glob("*/tests/*.py")), ids=lambda path: path.stem)
def test_tests_of_plugins_import_only_api_and_testing(path: Path) -> None:
    own = next(path.parent.parent.glob("streamgan_*")).stem
    for name in imports(ast.parse(path.read_text())):
        allowed = not name.startswith("streamgan.") or name.startswith(("streamgan.api", "streamgan.testing"))
        assert allowed or name.startswith(own), f"{path.name} imports {name}"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_sizes_and_docstrings(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it is"
    assert len(text.splitlines()) <= 400
    for function in functions(tree):
        lines = (function.end_lineno or 0) - function.lineno + 1
        assert lines <= LONGEST.get(path.name, 60), f"{function.name} has {lines} lines"
        assert function.returns is not None, f"{function.name} says nothing of what it returns"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_names_have_docstrings(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        members = [node, *node.body] if isinstance(node, ast.ClassDef) else [node]
        for member in members:
            if isinstance(member, (ast.FunctionDef, ast.ClassDef)) and not member.name.startswith("_"):
                if isinstance(node, ast.ClassDef) and node.name.startswith("_"):
                    continue
                assert ast.get_docstring(member), f"{path.name}: {member.name} has no docstring"
