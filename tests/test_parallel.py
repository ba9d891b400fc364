"""A film made in parts is the film that one machine makes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from streamgan import api, parallel, pipeline, plugins
from streamgan.request import Request

PTS = range(0, 45 * 512, 512)


def build(registry: plugins.Registry, source: Path, preset: str, output: Path, **fields: object) -> pipeline.Plan:
    return pipeline.build(
        Request.of(input=str(source), preset=preset, output=str(output), segment=4, **fields), registry
    )


class Batches(api.Translator):
    """Gives back what it gets, three at a time."""

    batch = 3

    def translate(self, images: api.Images) -> api.Images:
        return images


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("fields", [{}, {"start": 0.3, "every": 1}])
@pytest.mark.parametrize("translator", ["identity", "batches"])
def test_parts_make_the_whole(
    workers: int,
    fields: dict[str, object],
    translator: str,
    tmp_path: Path,
    make_clip: Callable[..., Path],
    make_preset: Callable[..., str],
    registry: plugins.Registry,
) -> None:
    registry.translators["batches"] = plugins.Provided("batches", Batches, "tests")
    source, preset = make_clip(pts=PTS, audio=True), make_preset(translator)
    pipeline.run(build(registry, source, preset, tmp_path / "whole.mp4", **fields))
    work = build(registry, source, preset, tmp_path / "out.mp4", **fields)
    parts = parallel.split(work, workers)
    assert len(parts) >= min(workers, 3)
    made = [parallel.make(work, part) for part in reversed(parts)]
    assert sum(made) == parallel.join(work, parts).frames
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.mp4", "trial.yaml", "whole.mp4"]


def test_a_part_that_is_missing_is_made_when_they_are_joined(
    tmp_path: Path, make_clip: Callable[..., Path], make_preset: Callable[..., str], registry: plugins.Registry
) -> None:
    source, preset = make_clip(pts=PTS), make_preset("identity")
    pipeline.run(build(registry, source, preset, tmp_path / "whole.mp4"))
    work = build(registry, source, preset, tmp_path / "out.mp4")
    parts = parallel.split(work, 4)
    for part in parts[:2] + parts[3:]:
        parallel.make(work, part)
    report = parallel.join(work, parts)
    assert report.frames == len(PTS)
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


class Failing(Batches):
    """Fails after some batches, once."""

    left = 6

    def translate(self, images: api.Images) -> api.Images:
        type(self).left -= 1
        if not type(self).left:
            time.sleep(0.5)  # what was translated gets encoded
            raise ValueError("the plug was pulled")
        return images


def test_parts_go_on_where_an_interrupted_run_ended(
    tmp_path: Path, make_clip: Callable[..., Path], make_preset: Callable[..., str], registry: plugins.Registry
) -> None:
    registry.translators["failing"] = plugins.Provided("failing", Failing, "tests")
    source, preset = make_clip(pts=PTS), make_preset("failing")
    with pytest.raises(api.PluginError, match="plug"):
        pipeline.run(build(registry, source, preset, tmp_path / "out.mp4"))
    pipeline.run(build(registry, source, preset, tmp_path / "whole.mp4"))
    work = build(registry, source, preset, tmp_path / "out.mp4", resume=True)
    parts = parallel.split(work, 2)
    first = parts[0].first
    assert first == 12  # two segments of six frames were whole
    assert sum(parallel.make(work, part) for part in parts) == len(PTS) - first
    parallel.join(work, parts)
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_parts_of_another_split_are_not_left_behind(
    tmp_path: Path, make_clip: Callable[..., Path], make_preset: Callable[..., str], registry: plugins.Registry
) -> None:
    source, preset = make_clip(pts=PTS), make_preset("identity")
    work = build(registry, source, preset, tmp_path / "out.mp4")
    for part in parallel.split(work, 5):
        parallel.make(work, part)
    (tmp_path / ".out.mp4.backup.parts").mkdir()  # of somebody else
    parts = parallel.split(work, 1)
    parallel.make(work, parts[0])
    assert parallel.join(work, parts).frames == len(PTS)
    assert sorted(path.name for path in tmp_path.glob(".*")) == [".out.mp4.backup.parts"]
