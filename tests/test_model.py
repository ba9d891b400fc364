"""The model file's card: what reads, and what is one clear error."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from streamgan.api import ModelError
from streamgan.model import ModelCard, SizeRule, read_card, write_card
from streamgan.testing import make_model

CARD = ModelCard("x", "none", "any", "CC0-1.0", "tests", SizeRule(8, (320, 240)), data=("a", "b"), metrics={"m": 1.5})


def changed(**entries: Any) -> str:
    """The card's JSON with some entries replaced."""
    return json.dumps(json.loads(CARD.to_json()) | entries)


def test_a_card_survives() -> None:
    assert ModelCard.from_json(CARD.to_json()) == CARD


def test_newer_entries_are_ignored() -> None:
    assert ModelCard.from_json(changed(newer=1, size={"multiple_of": 4, "newer": 2})).size.multiple_of == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1, 2]", "has format None"),
        ("null", "has format None"),
        (changed(format=99), "has format 99, this streamgan reads 1"),
        (changed(format="1"), "has format '1'"),
        ('{"format": 1, "name": "x"}', "the key 'method' is missing"),
        (changed(size=5), "size: 5"),
        (changed(size={"multiple_of": 0}), "size.multiple_of: 0 given, expected 1 or more"),
        (changed(size={"multiple_of": "x"}), "size.multiple_of: 'x'"),
        (changed(size={"trained": [1]}), "size.trained"),
        (changed(size={"trained": ["a", "b"]}), "size.trained"),
        (changed(domains=7), "domains: 7"),
    ],
)
def test_a_broken_card_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        ModelCard.from_json(text, where="model.onnx")
    assert str(error.value).startswith("model.onnx: ") and "\n" not in str(error.value)
    assert "export the model again" in str(error.value)


@pytest.mark.parametrize("domains", [(), ("plain", "bright")])
def test_a_card_that_does_not_fit_its_graph_is_refused(domains: tuple[str, ...], tmp_path: Path) -> None:
    path = make_model(tmp_path / "model.onnx", domains)
    card = read_card(path)
    assert card.domains == domains
    write_card(path, dataclasses.replace(card, domains=() if domains else ("one",)))
    with pytest.raises(ModelError, match="export the model again"):
        read_card(path)
