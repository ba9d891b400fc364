"""Live: the newest frame wins, latency is counted, the end is clean."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import read_pts

from streamgan import api, live, pipeline, plugins

Make = Callable[..., Path]
Preset = Callable[..., str]


def plan_for(registry: plugins.Registry, source: Path, preset: str, output: str) -> pipeline.Plan:
    """A plan for a live run."""
    return pipeline.build(pipeline.Request.of(input=str(source), preset=preset, output=output), registry)


def frame(index: int) -> api.Frame:
    """A frame that tells its index."""
    return api.Frame(np.full((2, 2, 3), index, np.uint8), index, Fraction(1, 25))


def test_the_newest_wins_and_the_rest_is_counted() -> None:
    newest = live.Newest()
    for index in range(5):
        newest.put(frame(index))
    taken = newest.take()
    assert taken is not None and taken.pts == 4 and newest.dropped == 4
    newest.close()
    assert newest.take() is None


def test_taking_waits_for_what_comes() -> None:
    newest = live.Newest()
    threading.Timer(0.05, lambda: newest.put(frame(3))).start()
    taken = newest.take()
    assert taken is not None and taken.pts == 3


def test_a_file_plays_at_its_own_speed(make_clip: Make, make_preset: Preset, registry: plugins.Registry) -> None:
    source = make_clip(pts=range(0, 10 * 512, 512))
    target = source.with_name("out.mkv")
    seen: list[live.LiveStatus] = []
    began = time.monotonic()
    status = live.run_live(plan_for(registry, source, make_preset("identity"), str(target)), seen.append)
    assert time.monotonic() - began >= 9 * 0.04
    assert status.frames + status.dropped == 10 and len(seen) == status.frames
    assert 0 < status.latency_p50 <= status.latency_p95
    pts = read_pts(target)
    assert len(pts) == status.frames and pts == sorted(pts) and pts[0] == 0


def test_a_slow_translator_drops_and_does_not_lag(
    make_clip: Make, make_preset: Preset, registry: plugins.Registry
) -> None:
    class Slow(api.Translator):
        def translate(self, images: api.Images) -> api.Images:
            time.sleep(0.1)
            return images

    registry.translators["slow"] = plugins.Provided("slow", Slow, "tests")
    source = make_clip(pts=range(0, 25 * 512, 512))
    status = live.run_live(plan_for(registry, source, make_preset("slow"), "null:"))
    assert status.dropped > status.frames
    assert "dropped" in str(status) and "ms" in str(status)


def test_a_limit_ends_it(make_clip: Make, make_preset: Preset, registry: plugins.Registry) -> None:
    plan = plan_for(registry, make_clip(pts=range(0, 50 * 512, 512)), make_preset("identity"), "null:")
    assert live.run_live(plan, frames=3).frames == 3


def test_an_error_leaves_nothing(make_clip: Make, make_preset: Preset, registry: plugins.Registry) -> None:
    class Broken(api.Translator):
        def translate(self, images: api.Images) -> api.Images:
            raise ZeroDivisionError

    registry.translators["broken"] = plugins.Provided("broken", Broken, "tests")
    source = make_clip()
    with pytest.raises(api.PluginError, match="translated frame 0"):
        live.run_live(plan_for(registry, source, make_preset("broken"), str(source.with_name("out.mp4"))))
    assert sorted(os.listdir(source.parent)) == ["clip.mp4", "trial.yaml"]
