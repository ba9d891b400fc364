"""The documentation against the code: every method, option, default, kind and command is there, and is right."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from typing import Any, get_args

import click
import pytest
import yaml

from streamgan_training import commands
from streamgan_training import recipe as recipes
from streamgan_training.method import Method, Published
from streamgan_training.stability.temporal import KindName

ROOT = Path(__file__).parents[2]
METHODS = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
README = (ROOT / "training/README.md").read_text(encoding="utf-8")
INDENTED = re.compile(r"(?:^(?: {4}.*)?\n)+", re.MULTILINE)


def method_class(name: str) -> type[Method]:
    """The class of a method that comes with the package."""
    module, _, attribute = commands.METHODS[name].partition(":")
    found: type[Method] = getattr(importlib.import_module(f"streamgan_training.{module}"), attribute)
    return found


def section(name: str) -> str:
    """What stands below a method's heading."""
    _, found, rest = METHODS.partition(f"\n## {name}\n")
    assert found, f"docs/methods.md has no heading '## {name}'"
    return rest.partition("\n## ")[0]


def rows(text: str) -> dict[str, list[str]]:
    """The rows of the tables in a text by their first cell; without the back ticks of the cells."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not set(line) <= set("|- ")]
    cells = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells}


def plain(value: Any) -> Any:
    """A value as YAML would give it."""
    return list(value) if isinstance(value, tuple) else value


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default of a field."""
    made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    return plain(made)


@pytest.mark.parametrize("name", commands.METHODS)
def test_every_option_of_every_method_is_there_with_its_default(name: str) -> None:
    options = method_class(name).Options
    own = set(inspect.get_annotations(options)) - {"name"}
    documented = rows(section(name))
    assert own == set(documented) - {"option"}
    for field in dataclasses.fields(options):
        if field.name in own:
            given, expected = yaml.safe_load(documented[field.name][0]), default_of(field)
            if isinstance(given, dict):
                expected = dataclasses.asdict(expected) if given else {}
                assert default_of(field) == type(default_of(field))(**given)
            assert given == expected, field.name


@pytest.mark.parametrize("name", commands.METHODS)
def test_options_taken_from_another_method_are_pointed_to(name: str) -> None:
    options = method_class(name).Options
    parents = [one for one in commands.METHODS if method_class(one).Options in options.__mro__[1:]]
    for parent in parents:
        assert f"Further options: all of {parent}" in section(name)


@pytest.mark.parametrize("name", commands.METHODS)
def test_how_a_paper_optimises_is_there(name: str) -> None:
    published = method_class(name).published
    given = [yaml.safe_load(cell) for cell in rows(METHODS.partition("\n## cyclegan")[0])[name]]
    assert given == [plain(getattr(published, field.name)) for field in dataclasses.fields(Published)]


@pytest.mark.parametrize("name", commands.METHODS)
def test_a_section_names_its_file_and_a_recipe_of_the_method(name: str) -> None:
    text, file = section(name), inspect.getsourcefile(method_class(name))
    assert file is not None
    if name != "fastcut":  # in the file of cut
        assert str(Path(file).relative_to(ROOT)) in text
    named = re.findall(r"training/recipes/[\w./-]+\.yaml", text)
    assert named
    for one in named:
        given = yaml.safe_load((ROOT / one).read_text(encoding="utf-8"))
        assert (given.get("method") or {}).get("name", "cyclegan") == name, one


@pytest.mark.parametrize("text", [METHODS, README], ids=["methods", "readme"])
def test_files_that_are_named_exist(text: str) -> None:
    named = re.findall(r"(?:training|docs|benchmarks)/[\w./-]+\.(?:yaml|py|md)", text)
    assert named
    for one in named:
        assert (ROOT / one).is_file(), one


def test_the_readme_names_every_method_and_every_kind() -> None:
    for name in (*commands.METHODS, *get_args(KindName)):
        assert f"`{name}`" in README


def test_the_readme_shows_every_command() -> None:
    found: list[click.Command] = []
    commands.register_commands(found.append)
    assert len(found) == 8
    for command in found:
        assert f"streamgan {command.name} " in README


def test_options_of_commands_in_the_readme_exist() -> None:
    found: list[click.Command] = []
    commands.register_commands(found.append)
    known = {command.name: command for command in found}
    shown = re.findall(r"^ +(?:torchrun .*-m )?streamgan (\w+) (.*)$", README, re.MULTILINE)
    for name, rest in shown:
        command = known.get(name)
        if isinstance(command, click.Group):
            command, rest = command.commands[rest.split()[0]], rest.partition(" ")[2]
        if command is not None:
            options = {option for each in command.params for option in each.opts}
            used = re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", rest.partition("#")[0])
            assert set(used) <= options, f"streamgan {name} {rest}"


def indented_yaml(start: str) -> str:
    """The block of the README that begins with some words, without its indentation."""
    blocks = [inspect.cleandoc("\n" + block) for block in INDENTED.findall(README)]
    (found,) = [block for block in blocks if block.startswith(start)]
    return found


def test_the_recipe_of_the_readme_is_one(tmp_path: Path) -> None:
    path = tmp_path / "my_look.yaml"
    path.write_text(indented_yaml("name: my_look"), encoding="utf-8")
    settings = recipes.load(path)
    assert settings.method.name == "cyclegan" and settings.domains == ("day", "evening")
    assert all(footage.hold_out for footages in settings.data.domains.values() for footage in footages)


def test_keys_of_recipes_in_the_readme_exist() -> None:
    parts = {field.name: field.type for field in dataclasses.fields(recipes.Recipe)}
    for part, key in re.findall(r"`(data|train|temporal|terms|augmentation|generator)\.(\w+)", README):
        fields = {field.name for field in dataclasses.fields(getattr(recipes, str(parts[part])))}
        assert key in fields, f"{part}.{key}"


def test_the_plugin_of_the_readme_works(tmp_path: Path) -> None:
    recipe, plugin = tmp_path / "my_look.yaml", tmp_path / "faithful.py"
    recipe.write_text(indented_yaml("name: my_look"), encoding="utf-8")
    plugin.write_text(indented_yaml("from streamgan import api"), encoding="utf-8")
    settings = recipes.load(recipe, {"method.name": "faithful"}, [plugin])
    assert issubclass(settings.method_class, method_class("cyclegan"))
