"""Plugins: find them, check each by itself, and know who provides what.

Everything arrives here the same way: installed packages (entry-point group ``streamgan``), loose files (``--plugin``)
and the built-ins. Each plugin is imported, checked and called alone on a throw-away pluggy manager; one that fails
anywhere is kept as a `Failure` and brings nothing, and the rest works. streamgan never installs anything.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pluggy

from streamgan import hookspecs
from streamgan.api import (
    Availability,
    Backend,
    Filter,
    PluginError,
    Sink,
    Source,
    StreamganError,
    Translator,
    UsageError,
)
from streamgan.settings import nearest

GROUP = "streamgan"
"""The entry-point group, and the name of the pluggy project."""
_BRINGING = (
    *("images", "writing.animations", "reading.cameras", "reading.sources"),
    *("writing.window", "writing.pipes", "writing.sinks", "models.translate", "models.backends", "preset"),
)
BUILT_IN = tuple(f"streamgan.{name}" for name in _BRINGING)
"""The modules of streamgan that bring something through the hooks, in the order in which they are asked."""
BUILT_IN_COMMANDS = ("run", "live", "presets", "plugins", "doctor", "bench", "tune", "show")
"""Names of commands that no plugin can take."""
HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("register_"))
"""Names of all hooks."""
_CLASSES: Mapping[str, type] = {
    "translators": Translator,
    "filters": Filter,
    "backends": Backend,
    "sources": Source,
    "sinks": Sink,
}
_ELSEWHERE = {("filters", "smooth"): "pip install streamgan-smooth, or pip install ./plugins/smooth from a checkout"}
"""By (kind, name): what our own plugins bring, and how to install it."""
_REFERENCE = re.compile(r"[\w.]+:[A-Za-z_]\w*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclasses.dataclass(frozen=True)
class Plugin:
    """A plugin that was loaded, or that was tried."""

    name: str
    """Distribution, module or file."""
    origin: str
    """Where it comes from, for people."""


@dataclasses.dataclass(frozen=True)
class Provided:
    """One thing that a plugin brought."""

    name: str
    """The name it was registered under."""
    value: Any
    """The class, the path of a preset, or the command."""
    plugin: str
    """Who brought it."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """A plugin that could not be loaded, or a name that several plugins claim."""

    plugin: str
    """Who failed; several names joined by " and " for a conflict."""
    error: str
    """What is wrong, in one line."""
    detail: str = ""
    """The traceback, for ``--debug``; empty if there is none."""


@dataclasses.dataclass(frozen=True)
class Registry:
    """Everything that plugins and built-ins brought, by kind and name."""

    translators: dict[str, Provided] = dataclasses.field(default_factory=dict)
    filters: dict[str, Provided] = dataclasses.field(default_factory=dict)
    backends: dict[str, Provided] = dataclasses.field(default_factory=dict)
    sources: dict[str, Provided] = dataclasses.field(default_factory=dict)
    """In the order in which they are asked: plugins before built-ins."""
    sinks: dict[str, Provided] = dataclasses.field(default_factory=dict)
    """In the order in which they are asked: plugins before built-ins."""
    presets: dict[str, Provided] = dataclasses.field(default_factory=dict)
    commands: dict[str, Provided] = dataclasses.field(default_factory=dict)
    methods: dict[str, Provided] = dataclasses.field(default_factory=dict)
    """Methods of training, each as ``package.module:Class``."""
    plugins: dict[str, Plugin] = dataclasses.field(default_factory=dict)
    """Those that work."""
    failures: list[Failure] = dataclasses.field(default_factory=list)
    """Those that do not."""
    conflicts: dict[tuple[str, str], Failure] = dataclasses.field(default_factory=dict)
    """By (kind, name): names that several plugins claim; nobody gets them. They are among `failures` too."""

    def translator(self, name: str) -> type[Translator]:
        """The translator of this name.

        Raises:
            UsageError: if there is none; PluginError if several plugins claim the name.
        """
        found: type[Translator] = self._find("translators", name)
        return found

    def filter(self, name: str) -> type[Filter]:
        """The filter of this name; raises as `translator`."""
        found: type[Filter] = self._find("filters", name)
        return found

    def backend(self, name: str) -> type[Backend]:
        """The backend of this name; raises as `translator`."""
        found: type[Backend] = self._find("backends", name)
        return found

    def method(self, name: str) -> Any:
        """The class of a method of training, imported now; raises as `translator`, and PluginError if it fails."""
        module, _, attribute = self._find("methods", name).partition(":")
        with blamed(f"method '{name}' of the plugin {self.methods[name].plugin}"):
            return getattr(importlib.import_module(module), attribute)

    def preset_path(self, name: str) -> Path:
        """The YAML file of a preset, given its name or itself a path; raises as `translator`."""
        looks_like_path = name.endswith((".yaml", ".yml")) or "/" in name or "\\" in name
        if looks_like_path and name not in self.presets:
            return Path(name)
        found: Path = self._find("presets", name)
        return found

    def _find(self, kind: str, name: str) -> Any:
        provided: dict[str, Provided] = getattr(self, kind)
        if name in provided:
            return provided[name].value
        if (kind, name) in self.conflicts:
            raise PluginError(self.conflicts[kind, name].error)
        known = ", ".join(sorted(provided)) or "none"
        broken = "".join(f"; the plugin {failure.plugin} failed: {failure.error}" for failure in self.failures)
        install = f"; install it with: {_ELSEWHERE[kind, name]}" if (kind, name) in _ELSEWHERE else ""
        near = install or nearest(name, {*provided, *(other for of, other in _ELSEWHERE if of == kind)})
        raise UsageError(f"no {kind[:-1]} is called '{name}'{near} (known: {known}){broken}")


def load(loose_files: Iterable[Path] = ()) -> Registry:
    """Loads all plugins and the built-ins. Never raises because of a plugin: see `Registry.failures`."""
    return _load([*_loose(loose_files), *_installed(), *_built_in()], HOOKS)


def load_commands(loose_files: Iterable[Path] = ()) -> Registry:
    """Loads only the commands that plugins bring, without the built-ins: what ``--help`` needs, quickly."""
    return _load([*_loose(loose_files), *_installed()], ("register_commands",))


def load_methods(loose_files: Iterable[Path] = ()) -> Registry:
    """Loads only the methods of training, without importing any of them."""
    return _load([*_loose(loose_files), *_installed()], ("register_methods",))


@contextlib.contextmanager
def blamed(who: str, doing: str = "") -> Iterator[None]:
    """Runs code of a plugin: whatever it raises beside streamgan's own errors becomes one line that names it.

    Args:
        who: what failed then, such as ``translator 'model'``.
        doing: what it was doing, such as ``while it was opened``.

    Raises:
        PluginError: in place of any other error.
    """
    try:
        yield
    except StreamganError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{' '.join(filter(None, (who, 'failed', doing)))} ({_one_line(error)})") from error


def held(cls: type) -> contextlib.AbstractContextManager[None]:
    """As `blamed`, for a class that a plugin registered; the built-ins' own errors pass unchanged."""
    built_in = cls.__module__ in BUILT_IN
    return contextlib.nullcontext() if built_in else blamed(f"{cls.__name__} of the plugin {cls.__module__}")


def availability(name: str, backend: type[Backend]) -> Availability:
    """Whether a backend can be used; one that cannot even say so cannot."""
    try:
        with blamed(f"backend '{name}'"):
            return backend.availability()
    except PluginError as error:
        return Availability(False, str(error))


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A plugin before it is imported."""

    plugin: Plugin
    fetch: Callable[[], object]


def _installed() -> Iterator[_Candidate]:
    """Plugins of installed packages."""
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda entry: entry.value):
        distribution = entry.dist.name if entry.dist else entry.value
        version = f" {entry.dist.version}" if entry.dist else ""
        yield _Candidate(Plugin(distribution, f"{distribution}{version}, {entry.value}"), entry.load)


def _loose(files: Iterable[Path]) -> Iterator[_Candidate]:
    """Plugins of single files named on the command line."""
    for path in files:
        yield _Candidate(Plugin(str(path), f"file {path}"), lambda path=path: _import_file(path))  # type: ignore[misc]


def _built_in() -> Iterator[_Candidate]:
    """The built-ins."""
    for name in BUILT_IN:
        yield _Candidate(Plugin(name, "built in"), lambda name=name: importlib.import_module(name))  # type: ignore[misc]


def _import_file(path: Path) -> object:
    """Imports one file as a module under a name of its own."""
    if not path.is_file():
        raise PluginError(f"{path}: no such file")
    name = "streamgan_loose_" + re.sub(r"\W", "_", path.stem)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path}: not a Python file (expected a name that ends in .py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _load(candidates: Iterable[_Candidate], hooks: Iterable[str]) -> Registry:
    """Takes each candidate, or notes why not."""
    registry = Registry()
    for candidate in candidates:
        plugin = candidate.plugin
        if plugin.name in registry.plugins:  # a distribution with two entry points
            plugin = dataclasses.replace(plugin, name=plugin.origin)
        try:
            brought = _collect(plugin.name, candidate.fetch(), hooks)
        except (Exception, SystemExit) as error:
            registry.failures.append(Failure(plugin.name, _one_line(error), traceback.format_exc()))
            continue
        registry.plugins[plugin.name] = plugin
        for kind, provided in brought:
            _add(registry, kind, provided)
    return registry


def _add(registry: Registry, kind: str, provided: Provided) -> None:
    """Enters one thing; a name that another plugin has already is taken from both."""
    table: dict[str, Provided] = getattr(registry, kind)
    key = (kind, provided.name)
    owners = [table.pop(provided.name).plugin] if provided.name in table else []
    if key in registry.conflicts:
        owners = [registry.conflicts[key].plugin]
        registry.failures.remove(registry.conflicts[key])
    if not owners:
        table[provided.name] = provided
        return
    both = f"{owners[0]} and {provided.plugin}"
    failure = Failure(both, f"{both} both bring a {kind[:-1]} called '{provided.name}'; remove one of them")
    registry.conflicts[key] = failure
    registry.failures.append(failure)


def _collect(name: str, plugin: object, hooks: Iterable[str]) -> list[tuple[str, Provided]]:
    """Checks one plugin and calls its hooks, on a manager of its own.

    Raises:
        PluginError: if it breaks the rules; whatever its hooks raise.
    """
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    _check_hooks(manager, plugin)
    manager.register(plugin, name)
    manager.check_pending()
    brought: list[tuple[str, Provided]] = []
    for hook in hooks:
        kind = hook.removeprefix("register_")
        taken = set[str]()

        def register(given: Any, value: Any = None, kind: str = kind, taken: set[str] = taken) -> None:
            key: Any = given
            if kind == "commands":
                key, value = getattr(given, "name", None), given
            _check(kind, key, value, taken)
            taken.add(key)
            brought.append((kind, Provided(key, value, name)))

        getattr(manager.hook, hook)(register=register)
    return brought


def _check_hooks(manager: pluggy.PluginManager, plugin: object) -> None:
    """Whether the hook functions of a plugin are some, and have names and arguments that exist."""
    found = [name for name in dir(plugin) if manager.parse_hookimpl_opts(plugin, name) is not None]
    if not found:
        raise PluginError("it has no hook; mark a function such as register_translators with @api.hookimpl")
    for name in found:
        if name not in HOOKS:
            raise PluginError(f"no hook is called '{name}'{nearest(name, HOOKS)} (hooks: {', '.join(HOOKS)})")
        arguments = list(inspect.signature(getattr(plugin, name)).parameters)
        if arguments != ["register"]:
            given = ", ".join(arguments)
            raise PluginError(f"the hook {name}({given}) must take one argument, called 'register'")


def _check(kind: str, name: Any, value: Any, taken: set[str]) -> None:
    """Whether a plugin registers something of the right kind under a proper name."""
    call = f"register_{kind}: register({name!r}, ...)"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PluginError(f"{call}: expected a name of letters, digits, '-', '_' and '.'")
    if name in taken:
        raise PluginError(f"{call}: called twice with this name")
    if kind == "commands":
        _check_command(call, name, value)
    elif kind == "presets":
        if not isinstance(value, Path) or not value.is_file():
            raise PluginError(f"{call}: expected the path of a YAML file (a pathlib.Path), {value!r} given")
    elif kind == "methods":
        if not isinstance(value, str) or not _REFERENCE.fullmatch(value):
            raise PluginError(f"{call}: expected a text such as 'package.module:Class', {value!r} given")
    else:
        _check_class(call, _CLASSES[kind], value)


def _check_command(call: str, name: str, value: Any) -> None:
    """Whether `value` is a command whose name is free."""
    import click

    if name in BUILT_IN_COMMANDS:
        raise PluginError(f"{call}: the command '{name}' is built in; choose another name")
    if not isinstance(value, click.Command):
        raise PluginError(f"{call}: expected a click.Command, {type(value).__name__} given")


def _check_class(call: str, base: type, value: Any) -> None:
    """Whether `value` is a finished subclass of `base`; the options that a preset gives must be a frozen dataclass."""
    if not isinstance(value, type):
        raise PluginError(f"{call}: expected a class, {type(value).__name__} given (register the class, not an object)")
    if not issubclass(value, base):
        raise PluginError(f"{call}: {value.__name__} is not a subclass of api.{base.__name__}")
    if inspect.isabstract(value):
        missing = ", ".join(sorted(getattr(value, "__abstractmethods__", ())))
        raise PluginError(f"{call}: {value.__name__} does not implement {missing}")
    batch = getattr(value, "batch", 1)
    if base is Translator and (not isinstance(batch, int) or batch < 1):
        raise PluginError(f"{call}: {value.__name__}.batch is {batch!r}, expected a whole number from 1")
    options = getattr(value, "Options", None)
    if base in (Translator, Filter) and not (isinstance(options, type) and _is_frozen(options)):
        raise PluginError(f"{call}: {value.__name__}.Options must be a class with @dataclasses.dataclass(frozen=True)")


def _is_frozen(cls: type) -> bool:
    """Whether a class is a frozen dataclass."""
    parameters = getattr(cls, "__dataclass_params__", None)
    return parameters is not None and bool(parameters.frozen)


def _one_line(error: BaseException) -> str:
    """An error in one line; errors that streamgan did not raise say their kind."""
    text = " ".join(str(error).split())
    if isinstance(error, PluginError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
