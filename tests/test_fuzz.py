"""The fuzzer itself: it sees what it is there to see, and some seconds of it find nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import fuzz
import pytest
from mutations import MAKERS, RUN, Case
from seeds import MODEL_PRESET, PRESET, Seeds, make

PLUGIN = """
import ctypes, os, time
from streamgan import api

class Bad(api.Translator):
    def open(self, context):
        {does}
    def translate(self, images):
        return images

@api.hookimpl
def register_translators(register):
    register("same", Bad)
"""
CASES = 8
"""Of each kind: some seconds."""


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Seeds:
    """The seeds."""
    return make(tmp_path_factory.mktemp("seeds"))


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fuzz.Child]:
    """A child to run cases in."""
    with fuzz.Child(tmp_path_factory.mktemp("cases")) as started:
        yield started


def run(
    child: fuzz.Child, seeds: Seeds, plugin: str = PLUGIN.format(does="pass"), patience: float = 20
) -> fuzz.Outcome:
    """A run with a plugin that may do anything."""
    files = {"same.py": plugin.encode(), "look.yaml": PRESET, "film.mp4": seeds.films["clip.mp4"]}
    return child.run((*RUN, "-o", "out.mp4"), files, patience)


def test_what_is_well_is_no_finding(child: fuzz.Child, seeds: Seeds) -> None:
    outcome = run(child, seeds)
    assert (outcome.code, outcome.errors, outcome.appeared, outcome.fault) == (0, "", ("out.mp4",), None)
    failed = run(child, seeds, PLUGIN.format(does="raise ValueError('no')"))
    assert failed.code == 1 and failed.appeared == () and failed.fault is None


@pytest.mark.parametrize(
    ("does", "fault"),
    [
        ("os.abort()", "the interpreter died of SIGABRT"),
        ("ctypes.string_at(0)", "the interpreter died of SIGSEGV"),
        ("os.write(2, b'chatter\\n')", "a library printed: chatter"),
        ("open('.out.partial-1', 'w'); raise ValueError", "left behind: .out.partial-1"),
    ],
)
def test_what_is_not_well_is_a_finding(child: fuzz.Child, seeds: Seeds, does: str, fault: str) -> None:
    assert (run(child, seeds, PLUGIN.format(does=does)).fault or "").startswith(fault)
    assert run(child, seeds).fault is None  # the next child is as good as the first


def test_silence_is_a_finding(child: fuzz.Child, seeds: Seeds) -> None:
    outcome = run(child, seeds, PLUGIN.format(does="time.sleep(60)"), patience=2)
    assert outcome.code is None and "hung" in (outcome.fault or "") and run(child, seeds).fault is None


@pytest.mark.parametrize(
    ("code", "errors", "well"),
    [
        (2, "streamgan: error: no\n", True),
        (1, "streamgan: error: no\nnote: 3 frames are kept\n", True),
        (1, "", False),
        (1, "streamgan: error: no\nstreamgan: error: no\n", False),
        (1, "streamgan: error: unexpected KeyError: 3\n", False),
        (0, "Traceback (most recent call last):\n  File\nKeyError: 3\n", False),
        (3, "streamgan: error: no\n", False),
    ],
)
def test_how_a_run_may_end(code: int, errors: str, well: bool) -> None:
    assert (fuzz.Outcome(code, errors).fault is None) == well


@pytest.mark.parametrize("kind", MAKERS)
def test_cases_are_the_same_for_the_same_chance_and_can_be_kept(kind: str, seeds: Seeds) -> None:
    made = [MAKERS[kind](random.Random(f"{number}"), seeds) for number in (1, 2, 3, 1)]
    assert made[0] == made[3] and len({case.to_json() for case in made}) == 3
    assert Case.from_json(made[0].to_json()) == made[0]


@pytest.mark.parametrize("kind", MAKERS)
def test_a_few_cases_of_each_kind(kind: str, child: fuzz.Child, seeds: Seeds, tmp_path: Path) -> None:
    for number in range(CASES):
        case = MAKERS[kind](random.Random(f"0 {number}"), seeds)
        outcome = child.run(case.arguments, dict(case.files))
        assert outcome.fault is None, f"{case.arguments} {outcome.errors}"


def test_a_run_that_goes_on_is_among_the_cases(child: fuzz.Child, seeds: Seeds) -> None:
    from seeds import PLUGIN as plugin

    assert any("manifest.json" in name for name in seeds.interrupted) and b"model" in MODEL_PRESET
    files = dict(seeds.interrupted) | {"same.py": plugin}
    outcome = child.run((*RUN, "-o", "out.mp4", "--resume"), files)
    assert (outcome.code, outcome.fault) == (0, None) and "out.mp4" in outcome.appeared
