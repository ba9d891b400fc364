"""The key ``temporal`` of a recipe."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from streamgan import settings
from streamgan.api import PresetError
from streamgan_training.stability.temporal import Temporal


def parsed(**values: Any) -> Temporal:
    return settings.parse(Temporal, values, "recipe.yaml: temporal")


def test_recipes_of_before_mean_what_they_meant() -> None:
    given = parsed(kind="synthetic", weight=10.0, start=0.675, every=2)
    assert given.kinds == ("synthetic",) and given.clip_length == 0 and not given.needs_footage
    assert [step for step in range(60, 72) if given.due(step, 100)] == [68, 70]
    assert given.cycle_weight == 0 and given.domains == "first"
    assert not parsed().due(99, 100) and parsed().kinds == ()


def test_kinds_add_up_and_say_what_clips_they_need() -> None:
    given = parsed(kind=["flow", "recycle"])
    assert given.kinds == ("flow", "recycle") and given.clip_length == 3 and given.needs_flow
    assert parsed(kind="flow").clip_length == 2 and parsed(kind="flow", length=5).clip_length == 5
    assert parsed(kind="temporal_d").clip_length == 3 and not parsed(kind="temporal_d").needs_footage
    again = settings.parse(Temporal, dataclasses.asdict(given), "x")
    assert again == given


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "sintetic"}, "sintetic"),
        ({"kind": "recycle", "length": 2}, "at least 3"),
        ({"every": 0}, "1 or more"),
        ({"start": 1.5}, "0.* to 1"),
        ({"flow": "pwc"}, "pwc"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(PresetError, match=message):
        parsed(**values)
