"""Plugins: each fault is noted, named when asked for, and brings nothing else down."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from pathlib import Path

import click
import pytest

from streamgan import api, hookspecs, plugins

GOOD = """
from streamgan import api

class Negative(api.Translator):
    def translate(self, images):
        return 255 - images

@api.hookimpl
def register_translators(register):
    register("loose", Negative)
"""


def write(folder: Path, text: str, name: str = "loose.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def load_one(folder: Path, text: str) -> plugins.Registry:
    return plugins.load([write(folder, text)])


def failure_of(folder: Path, text: str) -> str:
    """The one failure of a broken plugin; checks that the rest works."""
    registry = load_one(folder, text)
    (failure,) = registry.failures
    assert failure.plugin == str(folder / "loose.py")
    assert failure.plugin not in registry.plugins
    assert "\n" not in failure.error and "Traceback" in failure.detail
    assert {"model"} <= set(registry.translators) and {"onnxruntime"} <= set(registry.backends)
    return failure.error


def test_loose_file(tmp_path: Path) -> None:
    registry = load_one(tmp_path, GOOD)
    assert not registry.failures
    assert registry.translator("loose").__name__ == "Negative"
    assert registry.translators["loose"].plugin == str(tmp_path / "loose.py")


def test_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "installed_plugin.py").write_text(GOOD.replace('"loose"', '"installed"'))
    info = tmp_path / "installed_plugin-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: installed-plugin\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text("[streamgan]\nany = installed_plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = plugins.load()
    assert registry.translators["installed"].plugin == "installed-plugin"
    assert registry.plugins["installed-plugin"].origin == "installed-plugin 2.5, installed_plugin"
    sys.modules.pop("installed_plugin")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("register_translators", "register_translator"), "did you mean 'register_translators'?"),
        (("(register)", "(registry)"), "register_translators(registry) must take one argument, called 'register'"),
        (("(register)", "()"), "register_translators() must take one argument, called 'register'"),
        (("@api.hookimpl", ""), "it has no hook; mark a function such as register_translators with @api.hookimpl"),
        (("from streamgan", "import no_such_module\nfrom streamgan"), "ModuleNotFoundError: No module named 'no_such"),
        (("from streamgan", "import sys; sys.exit(3)\nfrom streamgan"), "SystemExit: 3"),
        (("from streamgan", "def def\nfrom streamgan"), "SyntaxError: "),
        (('register("loose", Negative)', "1 / 0"), "ZeroDivisionError: division by zero"),
        (('"loose", Negative', '"loose", Negative()'), "expected a class, Negative given"),
        (('"loose", Negative', '"loose", int'), "int is not a subclass of api.Translator"),
        (('"loose", Negative', '"neg ative", Negative'), "expected a name of letters, digits"),
        (("def translate", "def translat"), "Negative does not implement translate"),
        (("    def translate", "    Options = dict\n    def translate"), "Negative.Options must be a class"),
    ],
)
def test_broken_plugin(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    text = GOOD.replace(*change)
    assert text != GOOD
    assert message in failure_of(tmp_path, text)


def test_batch_must_be_a_number(tmp_path: Path) -> None:
    for value in ("0", '"four"'):
        text = GOOD.replace("    def translate", f"    batch = {value}\n    def translate")
        assert "expected a whole number from 1" in failure_of(tmp_path, text)


def test_a_backend_that_cannot_even_say_so_cannot_be_used() -> None:
    class Broken(api.Backend):
        @classmethod
        def availability(cls) -> api.Availability:
            raise RuntimeError("no driver")

        def load(self, path: Path, *, threads: int, precision: str = "auto") -> api.Session:
            raise NotImplementedError

    state = plugins.availability("broken", Broken)
    assert (state.usable, state.reason) == (False, "backend 'broken' failed (RuntimeError: no driver)")


def test_whose_fault_it_is() -> None:
    with pytest.raises(api.PluginError, match=r"abacus failed \(SystemExit: 3\)"), plugins.blamed("abacus"):
        sys.exit(3)
    with pytest.raises(api.SinkError), plugins.blamed("abacus"):
        raise api.SinkError("its own word")


def test_registering_twice_is_a_fault(tmp_path: Path) -> None:
    assert "called twice with this name" in failure_of(tmp_path, GOOD + '    register("loose", Negative)\n')


def test_a_plugin_that_fails_late_brings_nothing(tmp_path: Path) -> None:
    text = GOOD + "\n@api.hookimpl\ndef register_sinks(register):\n    raise ValueError('late')\n"
    registry = load_one(tmp_path, text)
    assert "loose" not in registry.translators
    with pytest.raises(api.UsageError) as caught:
        registry.translator("loose")
    assert f"the plugin {tmp_path}/loose.py failed: ValueError: late" in str(caught.value)


def test_missing_loose_file(tmp_path: Path) -> None:
    (failure,) = plugins.load([tmp_path / "missing.py"]).failures
    assert "no such file" in failure.error


def test_two_plugins_with_one_name(tmp_path: Path) -> None:
    files = [write(tmp_path, GOOD, name) for name in ("one.py", "two.py", "three.py")]
    registry = plugins.load(files[:2])
    assert "loose" not in registry.translators
    with pytest.raises(api.PluginError) as caught:
        registry.translator("loose")
    for file in files[:2]:
        assert str(file) in str(caught.value)
    assert len(registry.failures) == 1
    (failure,) = plugins.load(files).failures
    assert all(str(file) in failure.error for file in files)


def test_unknown_name_gets_a_suggestion() -> None:
    registry = plugins.load()
    with pytest.raises(api.UsageError, match="no translator is called 'modle'; did you mean 'model'"):
        registry.translator("modle")
    with pytest.raises(api.UsageError, match="no backend is called 'onnxruntim'; did you mean 'onnxruntime'"):
        registry.backend("onnxruntim")
    with pytest.raises(api.UsageError, match="no preset is called 'xyz'"):
        registry.preset_path("xyz")


def test_plugins_are_asked_before_built_ins(tmp_path: Path) -> None:
    text = """
from streamgan import api

class Anything(api.Source):
    def __init__(self, location, selection): pass
    @classmethod
    def accepts(cls, location): return True
    @property
    def info(self): raise NotImplementedError
    def frames(self): yield from ()
    def close(self): pass

@api.hookimpl
def register_sources(register):
    register("anything", Anything)
"""
    registry = load_one(tmp_path, text)
    assert next(iter(registry.sources)) == "anything"


COMMAND = """
import click
from streamgan import api

@click.command("{name}")
def command():
    click.echo("hello")

@api.hookimpl
def register_commands(register):
    register(command)
"""


def test_commands(tmp_path: Path) -> None:
    registry = plugins.load_commands([write(tmp_path, COMMAND.format(name="greet"))])
    assert isinstance(registry.commands["greet"].value, click.Command)
    assert not registry.translators


def test_commands_that_are_built_in_cannot_be_taken(tmp_path: Path) -> None:
    assert "the command 'run' is built in" in failure_of(tmp_path, COMMAND.format(name="run"))


def test_a_command_must_be_one(tmp_path: Path) -> None:
    text = COMMAND.format(name="greet").replace("register(command)", "register(print)")
    assert "expected" in failure_of(tmp_path, text)


def test_preset_must_exist(tmp_path: Path) -> None:
    text = """
from pathlib import Path
from streamgan import api

@api.hookimpl
def register_presets(register):
    register("nowhere", Path("/no/such/file.yaml"))
"""
    assert "expected the path of a YAML file" in failure_of(tmp_path, text)


def test_built_ins_come_through_the_hooks() -> None:
    registry = plugins.load()
    assert {each.plugin for each in registry.sinks.values()} >= {"streamgan.writing.sinks"}
    assert registry.translators["model"].plugin == "streamgan.models.translate"
    assert set(plugins.BUILT_IN) <= set(registry.plugins)


def test_every_hook_is_documented() -> None:
    headings = set((Path(__file__).parent.parent / "docs" / "plugins.md").read_text().splitlines())
    for hook in plugins.HOOKS:
        assert getattr(hookspecs, hook).__doc__
        assert f"### {hook}" in headings, f"docs/plugins.md has no heading '### {hook}'"


FILTER = """
import dataclasses
from streamgan import api

class Calm(api.Filter):
    @dataclasses.dataclass(frozen=True)
    class Options:
        strength: float = api.option(0.5, minimum=0, maximum=1)

    def apply(self, images, made):
        return made

@api.hookimpl
def register_filters(register):
    register("{name}", Calm)
"""


def test_filters(tmp_path: Path) -> None:
    registry = load_one(tmp_path, FILTER.format(name="calm"))
    assert registry.filter("calm").__name__ == "Calm"
    with pytest.raises(api.UsageError, match="no filter is called 'clam'; did you mean 'calm'"):
        registry.filter("clam")
    thawed, other = FILTER.replace("(frozen=True)", ""), FILTER.replace("api.Filter", "")
    assert "Calm.Options must be a class" in failure_of(tmp_path, thawed.format(name="calm"))
    assert "is not a subclass of api.Filter" in failure_of(tmp_path, other.format(name="calm"))


def test_a_filter_of_our_own_that_is_not_installed_says_how_to_get_it() -> None:
    with pytest.raises(api.UsageError, match="called 'smooth'; install it with: pip install streamgan-smooth"):
        plugins.Registry().filter("smooth")
    with pytest.raises(api.UsageError, match="called 'smoth'; did you mean 'smooth'"):
        plugins.Registry().filter("smoth")


def filters_of(tmp_path: Path, temporal: str, smooth: float | None = None) -> list[tuple[str, object]]:
    """The names and options of the filters of a plan, made of a preset's ``temporal`` and ``--smooth``."""
    from streamgan import plan

    registry = load_one(tmp_path, FILTER.format(name="calm"))
    registry.filters["smooth"] = registry.filters["calm"]
    (tmp_path / "x.yaml").write_text(f"title: x\ntranslator: model\ntemporal: {temporal}\n")
    request = plan.Request.of(input="x", preset="x", smooth=smooth)
    found = plan.resolve_filters(request, plan.Preset.load(tmp_path / "x.yaml"), registry)
    return [(name, options.strength) for name, _, options in found]


def test_the_filters_of_a_preset_and_of_the_request(tmp_path: Path) -> None:
    assert filters_of(tmp_path, "{}") == []
    assert filters_of(tmp_path, "{}", 0.3) == [("smooth", 0.3)]
    assert filters_of(tmp_path, "{calm: {}, smooth: 0.7}") == [("calm", 0.5), ("smooth", 0.7)]
    assert filters_of(tmp_path, "{smooth: 0.7, calm: 1}", 0.2) == [("smooth", 0.2), ("calm", 1.0)]
    assert filters_of(tmp_path, "{smooth: 0.7, calm: 1}", 0) == [("calm", 1.0)]
    with pytest.raises(api.PresetError, match=r"x.yaml: temporal.calm: unknown key 'stregth'; did you mean 'strength'"):
        filters_of(tmp_path, "{calm: {stregth: 1}}")
    with pytest.raises(api.PresetError, match=r"temporal.calm.*strength.* 2.* expected 0 to 1"):
        filters_of(tmp_path, "{calm: 2}")
    with pytest.raises(api.UsageError, match="--smooth nan: must be from 0 to 1"):
        filters_of(tmp_path, "{}", float("nan"))


def test_two_entry_points_of_one_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = []
    for name in ("first", "second"):
        module = types.ModuleType(f"fake_{name}")
        exec(GOOD.replace('"loose"', f'"{name}"'), module.__dict__)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        entries.append(importlib.metadata.EntryPoint(name, module.__name__, plugins.GROUP))
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries)
    assert {"first", "second", "model"} <= set(plugins.load().translators)


METHOD = """
from streamgan import api

class Mine:
    pass

@api.hookimpl
def register_methods(register):
    register("mine", {reference})
"""


def test_a_method_of_training_is_text_and_is_imported_when_asked_for(tmp_path: Path) -> None:
    registry = plugins.load_methods([write(tmp_path, METHOD.format(reference='f"{__name__}:Mine"'))])
    assert isinstance(registry.methods["mine"].value, str)
    assert registry.method("mine").__name__ == "Mine"


def test_a_method_that_is_no_reference_or_leads_nowhere_is_named(tmp_path: Path) -> None:
    assert "expected a text such as 'package.module:Class'" in failure_of(tmp_path, METHOD.format(reference="Mine"))
    registry = plugins.load_methods([write(tmp_path, METHOD.format(reference='"no_such_package:Mine"'))])
    with pytest.raises(api.PluginError, match=r"method 'mine' of the plugin .* failed"):
        registry.method("mine")
