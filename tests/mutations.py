"""Input that nobody would make on purpose: presets, models, records, films and command lines, mutated.

A maker takes a source of chance and the seeds, and gives a `Case`: files and a command line. The same chance gives the
same case.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import random
import struct
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import click
import onnx
import yaml
from seeds import MODEL_PRESET, PLUGIN, PRESET, Seeds

from streamgan.cli.program import program

NUMBERS = (0, -1, 1, 7, 255, 2**31 - 1, 2**31, 2**32, 2**63, 10**30, 1e308, -0.5, float("inf"), float("nan"))
TEXTS = (
    "",
    " ",
    "x" * 5000,
    "é\u202e🎬",
    "a\nb",
    "..",
    "./",
    "~nobody",
    "%d",
    "{}",
    "--",
    "-",
    "same",
    "film.mp4",
    "1e9",
)
RUN = ("--plugin", "same.py", "run", "film.mp4", "-p", "look.yaml", "--threads", "1", "-q")
FILM = "film.mp4"
_INNER = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"dinf")
"""Boxes of an MP4 that hold others."""

Chance: TypeAlias = random.Random


@dataclasses.dataclass(frozen=True)
class Case:
    """A command line, and the files that it finds in its folder."""

    kind: str
    arguments: tuple[str, ...]
    files: Mapping[str, bytes]
    """Content by name, which may have folders in it."""

    def to_json(self) -> str:
        """For a file that `from_json` reads."""
        files = {name: base64.b64encode(content).decode() for name, content in self.files.items()}
        return json.dumps({"kind": self.kind, "arguments": self.arguments, "files": files}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Case:
        """Reads what `to_json` wrote."""
        content = json.loads(text)
        files = {name: base64.b64decode(each) for name, each in content["files"].items()}
        return cls(content["kind"], tuple(content["arguments"]), files)


def preset(chance: Chance, seeds: Seeds) -> Case:
    """A run with a preset that is odd in its values, in its YAML, or in its bytes."""
    base = MODEL_PRESET if chance.random() < 0.5 else PRESET
    content = [_odd_preset, _odd_yaml, lambda _, given: damaged(chance, given)][chance.randrange(3)](chance, base)
    command = ("presets", "show", "look.yaml") if chance.random() < 0.3 else (*RUN[2:], "-o", "out.mp4", "--dry-run")
    files = {"look.yaml": content, "negative.onnx": seeds.model, FILM: seeds.films["clip.mp4"], "same.py": PLUGIN}
    return Case("preset", (*RUN[:2], *command), files)


def _odd_preset(chance: Chance, base: bytes) -> bytes:
    """A preset in which one value or key is another one."""
    content = yaml.safe_load(base) | {"strength": 1, "temporal": {}, "description": ""}
    return yaml.safe_dump(with_odd_leaf(chance, content), allow_unicode=chance.random() < 0.5).encode()


def _odd_yaml(chance: Chance, base: bytes) -> bytes:
    """A preset that uses what YAML has and nobody needs."""
    depth = chance.choice((10, 100, 3000))
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(9))
    key = chance.choice(("title", "options", "strength", "temporal", "translator", "description"))
    texts = [
        bomb + f"{key}: *a9\n",
        f"{key}: {'[' * depth}{']' * depth}\n",
        f"{key}: {'{a: ' * depth}1{'}' * depth}\n",
        "- " * depth + "x\n",
        f"{key}: &a [*a]\n",
        f"{key}: &a {{b: *a}}\n",
        f"{key}: !!python/object/apply:os.system ['true']\n",
        f"{key}: !!binary gIGC\n",
        f"{key}: 2026-99-99\n",
        f"{key}: {{<<: {key}}}\n",
        f"{key}: {'9' * 5000}\n",
        f"{key}: 0x{'f' * 400}\n",
        f"{key}: 190:20:30.15\n",
        f"? [{key}]\n: 1\n",
        "? {a: 1}\n: 1\n",
        f"{key}: !!set {{a, b}}\n",
        f"{key}: |\n{' ' * depth}x\n",
        "%YAML 9.9\n---\n",
        "--- 1\n--- 2\n",
        "\t",
    ]
    text = chance.choice((base.decode(), "")) + chance.choice(texts)
    return text.encode(chance.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32")))


def model(chance: Chance, seeds: Seeds) -> Case:
    """A run with a model whose bytes, card or graph is odd."""
    content = [_odd_card, _odd_graph, lambda _, given: damaged(chance, given)][chance.randrange(3)](chance, seeds.model)
    command = (
        ("presets", "show", "look.yaml") if chance.random() < 0.2 else (*RUN[2:], "-o", "out.mp4", "--frames", "2")
    )
    files = {"look.yaml": MODEL_PRESET, "negative.onnx": content, FILM: seeds.films["clip.mp4"], "same.py": PLUGIN}
    return Case("model", (*RUN[:2], *command), files)


def _odd_card(chance: Chance, content: bytes) -> bytes:
    """A model whose card has another value somewhere, or is damaged."""
    proto = onnx.load_from_string(content)
    (entry,) = [each for each in proto.metadata_props if each.key == "streamgan"]
    if chance.random() < 0.3:
        entry.value = damaged(chance, entry.value.encode()).decode("utf-8", "replace")
    else:
        entry.value = json.dumps(with_odd_leaf(chance, json.loads(entry.value)), default=str)
    return bytes(proto.SerializeToString())


def _odd_graph(chance: Chance, content: bytes) -> bytes:
    """A model that takes or gives something else, or computes it wrongly."""
    proto = onnx.load_from_string(content)
    value = chance.choice((proto.graph.input[0], proto.graph.output[0]))
    node, shape = chance.choice(proto.graph.node), value.type.tensor_type.shape
    change = chance.randrange(8)
    if change == 0:
        value.name = odd_text(chance)
    elif change == 1:
        value.type.tensor_type.elem_type = chance.randrange(25)
    elif change == 2:
        chance.choice(shape.dim).dim_value = chance.choice((0, -1, 1, 2, 4, 17, 2**31, 2**62))
    elif change == 3:
        del shape.dim[chance.randrange(4)]
    elif change == 4:
        node.op_type = chance.choice(("Transpose", "Relu", "Nothing", "Concat", "Loop", "Shape", "ReduceMax", "Tile"))
    elif change == 5:
        node.input[0] = chance.choice(("frames", "gain", "nowhere", node.output[0], ""))
    elif change == 6:
        proto.graph.initializer[chance.randrange(4)].raw_data = chance.randbytes(chance.randrange(9))
    else:
        proto.opset_import[0].version = chance.choice((0, 1, 6, 99, -1))
    return bytes(proto.SerializeToString())


def record(chance: Chance, seeds: Seeds) -> Case:
    """A record that is odd in its values or its bytes, to be shown."""
    if chance.random() < 0.3:
        content = damaged(chance, seeds.record)
    else:
        content = json.dumps(with_odd_leaf(chance, json.loads(seeds.record))).encode()
    return Case("record", ("show", "run.json"), {"run.json": content})


def segments(chance: Chance, seeds: Seeds) -> Case:
    """A run that goes on where another one ended, which left something odd."""
    files = dict(seeds.interrupted)
    name = chance.choice([name for name in files if name.startswith(".")])
    if name.endswith(".json") and chance.random() < 0.7:
        files[name] = json.dumps(with_odd_leaf(chance, json.loads(files[name]))).encode()
    else:
        files[name] = damaged(chance, files[name])
    return Case("segments", (*RUN, "-o", "out.mp4", "--resume"), files | {"same.py": PLUGIN})


def manifest(chance: Chance, seeds: Seeds) -> Case:
    """A run of the films that an odd list names."""
    lines = ["film.mp4", '{"input": "other.mkv", "output": "made/two.mkv"}', "# nothing", "", "folder", "*.mp4"]
    for _ in range(chance.randrange(3)):
        odd = json.dumps(with_odd_leaf(chance, {"input": "film.mp4", "output": "out.mp4"}))
        lines.insert(chance.randrange(len(lines) + 1), chance.choice((odd, odd, odd_text(chance), odd[:-3])))
    content = "\n".join(chance.sample(lines, chance.randrange(len(lines) + 1))).encode("utf-8", "replace")
    content = damaged(chance, content) if content and chance.random() < 0.3 else content
    further = [
        ["--shard", chance.choice(("1/2", "0/0", "-1/3", "2/1", "9" * 30))],
        ["--skip-existing"],
        ["--fail-fast"],
    ]
    added = [each for pair in further if chance.random() < 0.2 for each in pair]
    files = {"list": content, FILM: seeds.films["clip.mp4"], "folder/a.mp4": seeds.films["clip.mp4"][:2000]}
    arguments = (*RUN[:3], *RUN[4:], "--manifest", "list", "-o", chance.choice(("made/", "*.x.mkv", "x.mp4")), *added)
    return Case("manifest", (*arguments, "--frames", "2"), files | {"look.yaml": PRESET, "same.py": PLUGIN})


def film(chance: Chance, seeds: Seeds) -> Case:
    """A run of a damaged film, or of a piece of one behind another."""
    name = chance.choice(sorted(seeds.films))
    content, way = seeds.films[name], chance.random()
    if way < 0.3 and content[4:8] == b"ftyp":
        content = with_odd_box(chance, content)
    elif way < 0.4:
        other = seeds.films[chance.choice(sorted(seeds.films))]
        content = content[: chance.randrange(len(content) + 1)] + other[chance.randrange(len(other) + 1) :]
    else:
        content = damaged(chance, content)
    name = name if chance.random() < 0.7 else chance.choice(("film.mp4", "film.mkv", "film.ts", "film.gif", "film.jpg"))
    output = chance.choice(
        ("out.mp4", "out.mp4", "out.mkv", "out.webm", "out.mov", "out.ts", "out.gif", "out.png", "out/")
    )
    further = ("--start", "0.2") if chance.random() < 0.2 else ()
    arguments = (*RUN[:3], f"./{name}", *RUN[4:], "-o", output, "--frames", "8", *further)
    return Case("film", arguments, {name: content, "look.yaml": PRESET, "same.py": PLUGIN})


def command(chance: Chance, seeds: Seeds) -> Case:
    """A command line with options and values that it may have, of any kind."""
    name = chance.choice(("run", "run", "run", "show", "presets", "plugins", "nonsense"))
    context = click.Context(program)
    known = program.get_command(context, name) if name != "nonsense" else None
    arguments = [name]
    for option in () if known is None else known.params:
        if not isinstance(option, click.Option):
            arguments += [chance.choice((FILM, FILM, FILM, *TEXTS, "-", "0", "x%d.png", "[", "file:film.mp4"))]
        elif option.name == "preset" or (option.name != "verbose" and chance.random() < 0.12):
            arguments += [option.opts[0]] + ([] if option.is_flag else [_option_value(chance, option)])
    if chance.random() < 0.1:
        arguments.insert(chance.randrange(len(arguments) + 1), odd_text(chance))
    outside = any("\0" in each for each in arguments)
    files = {"look.yaml": PRESET, "same.py": PLUGIN, FILM: seeds.films["clip.mp4"], "run.json": seeds.record}
    return Case("command", (*RUN[:2], *arguments) if not outside else ("--help",), files)


def _option_value(chance: Chance, option: click.Option) -> str:
    """A value for an option: more often one that it might take."""
    if chance.random() < 0.3:
        return chance.choice((*TEXTS, *map(str, NUMBERS)))
    if isinstance(option.type, click.Choice):
        return str(chance.choice(list(option.type.choices)))
    fitting = {
        "preset": "look.yaml",
        "output": "out.mkv",
        "report": "run2.json",
        "size": "32",
        "encoder_preset": "fast",
    }
    return fitting.get(option.name or "", str(chance.choice((0, 1, 2, 0.5, 30))))


MAKERS: Mapping[str, Callable[[Chance, Seeds], Case]] = {
    each.__name__: each for each in (film, preset, model, command, segments, manifest, record)
}
"""By the kind of case that they make."""


def damaged(chance: Chance, content: bytes) -> bytes:
    """Some bytes changed, lost, doubled or put in, more often near the beginning."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        end = len(data) if chance.random() < 0.5 else min(len(data), 600)
        at, length = chance.randrange(end + 1), chance.choice((1, 4, 16, 200))
        chance.choice(_DAMAGES)(chance, data, at, length)
    return bytes(data)


def _flip(chance: Chance, data: bytearray, at: int, length: int) -> None:
    """One bit is another one."""
    if at < len(data):
        data[at] ^= 1 << chance.randrange(8)


def _overwrite(chance: Chance, data: bytearray, at: int, length: int) -> None:
    """A number of four bytes is an extreme one."""
    data[at : at + 4] = struct.pack(chance.choice("<>") + "I", chance.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1)))


def _lose(chance: Chance, data: bytearray, at: int, length: int) -> None:
    """Some bytes are missing, or all from here on."""
    del data[at : (at + length if chance.random() < 0.7 else None)]


def _insert(chance: Chance, data: bytearray, at: int, length: int) -> None:
    """Noise lies between."""
    data[at:at] = chance.randbytes(length)


def _double(chance: Chance, data: bytearray, at: int, length: int) -> None:
    """Some bytes come twice."""
    data[at:at] = data[at : at + length]


def _blank(chance: Chance, data: bytearray, at: int, length: int) -> None:
    """Some bytes are zero, as after a power cut."""
    data[at : at + length] = bytes(min(length, len(data) - at))


_DAMAGES = (_flip, _flip, _overwrite, _lose, _insert, _double, _blank)


def boxes(content: bytes, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """Where the boxes of an MP4 begin and end, those within others too."""
    found, end = [], len(content) if end is None else end
    while start + 8 <= end:
        size = int.from_bytes(content[start : start + 4], "big")
        if size < 8 or start + size > end:
            break
        found.append((start, start + size))
        if content[start + 4 : start + 8] in _INNER:
            found += boxes(content, start + 8, start + size)
        start += size
    return found


def with_odd_box(chance: Chance, content: bytes) -> bytes:
    """An MP4 in which a box is missing, doubled, exchanged, called differently, or says that it is of another size."""
    found = boxes(content)
    (start, end), (other, other_end) = sorted((chance.choice(found), chance.choice(found)))
    box, change = content[start:end], chance.randrange(5)
    if change == 0:
        return content[:start] + content[end:]
    if change == 1:
        return content[:end] + box + content[end:]
    if change == 2 and end <= other:
        return content[:start] + content[other:other_end] + content[end:other] + box + content[other_end:]
    if change == 3:
        return (
            content[: start + 4] + chance.choice((b"free", b"moov", b"trak", b"stts", b"stsz")) + content[start + 8 :]
        )
    size = chance.choice((0, 1, 7, 8, len(box) - 1, len(box) + 1, 2**31, 2**32 - 1))
    return content[:start] + size.to_bytes(4, "big") + content[start + 4 :]


def odd_text(chance: Chance) -> str:
    """A text that programs stumble over."""
    return chance.choice(TEXTS)


def odd_value(chance: Chance, depth: int = 3) -> Any:
    """Anything that YAML and JSON can hold."""
    kind = chance.randrange(8 if depth else 5)
    if kind < 2:
        return chance.choice(NUMBERS)
    if kind < 4:
        return odd_text(chance)
    if kind == 4:
        return chance.choice((None, True, False))
    if kind == 5:
        return functools.reduce(lambda inner, _: [inner], range(chance.choice((5, 200))), [1])
    inner = [odd_value(chance, depth - 1) for _ in range(chance.randrange(4))]
    return inner if kind == 6 else {str(odd_value(chance, 0)): each for each in inner}


def with_odd_leaf(chance: Chance, content: Any) -> Any:
    """The same structure with one value, key or entry replaced, lost or added."""
    if not isinstance(content, dict | list) or not content or chance.random() < 0.1:
        return odd_value(chance)
    if isinstance(content, list):
        changed = list(content)
        changed[chance.randrange(len(changed))] = with_odd_leaf(chance, chance.choice(changed))
        return changed
    key = chance.choice(sorted(content))
    rest = {each: value for each, value in content.items() if each != key}
    way = chance.random()
    if way < 0.1:
        return rest
    if way < 0.2:
        return rest | {odd_text(chance): content[key]}
    return rest | {key: with_odd_leaf(chance, content[key])}
