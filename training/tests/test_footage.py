"""Footage of any kind: where films are cut, which frames make a clip, and what the cache does when it is damaged."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from streamgan.api import SinkError, SourceError, UsageError
from streamgan.reading.sources import VideoFile
from streamgan.testing import make_clip
from streamgan_training.frames import data, footage, shots
from streamgan_training.frames import film as films
from streamgan_training.frames.film import Image as Pixels
from streamgan_training.frames.footage import Sampling, open_footage

SIZE = (96, 64)


def scene(seed: int, shift: int = 0) -> Pixels:
    """A picture of soft blobs, moved to the left by some pixels: ``(64, 96, 3)`` uint8."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 255, (8, 24, 3), dtype=np.uint8))
    wide = np.array(coarse.resize((288, 64), Image.Resampling.BICUBIC))
    return wide[:, shift : shift + SIZE[0]].copy()


def write_film(path: Path, images: Sequence[Pixels], times: Sequence[int] | None = None) -> Path:
    """A film without loss, in RGB; times in milliseconds, 40 apart if not given."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "bgr0"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = (times[number] if times else number * 40), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def silent(text: str) -> None:
    raise AssertionError(f"no warning was expected: {text}")


def test_cuts_are_found_and_motion_and_flashes_are_none(tmp_path: Path) -> None:
    pan = [scene(1, 3 * step) for step in range(20)]
    flash = [scene(2, step) for step in range(15)]
    flash[7] = np.full_like(flash[7], 250)
    still = [scene(3)] * 3
    film = write_film(tmp_path / "film.mkv", [*pan, *flash, *still, *[scene(4, step) for step in range(9)]])
    found = open_footage(film, Sampling(), silent, tmp_path / "cache")
    assert [len(shot) for shot in found] == [20, 15, 3, 9]
    assert [shot.name for shot in found] == ["film_s0000", "film_s0001", "film_s0002", "film_s0003"]


def test_the_change_that_stays_is_the_least_across_the_cut() -> None:
    pictures = np.random.default_rng(0).random(9)
    distances = [
        tuple(abs(pictures[t] - pictures[t - back]) if t >= back else np.inf for back in (1, 2, 3)) for t in range(9)
    ]
    change = shots.lasting_change(distances)  # type: ignore[arg-type]
    for t in range(2, 8):
        pairs = [abs(pictures[i] - pictures[j]) for i in (t - 2, t - 1) for j in (t, t + 1)]
        assert change[t] == pytest.approx(min(pairs))


def test_frames_are_those_of_the_film_and_clips_stay_within_a_shot(tmp_path: Path) -> None:
    images = [scene(seed, step) for seed in (1, 2) for step in range(8)]
    first, second = open_footage(write_film(tmp_path / "film.mkv", images), Sampling(), silent, tmp_path / "cache")
    for shot, offset in ((first, 0), (second, 8)):
        assert shot.clips(3) == [(i, i + 1, i + 2) for i in range(6)]
        for index in range(8):
            assert torch.equal(shot.frame(index), torch.from_numpy(images[offset + index]).permute(2, 0, 1))
            assert shot.seconds(index) * 1000 == (offset + index) * 40


def test_frames_are_reduced_as_images_are(tmp_path: Path) -> None:
    Image.fromarray(scene(5)).save(tmp_path / "f.png")
    film = write_film(tmp_path / "film.mkv", [scene(5)])
    (shot,) = open_footage(film, Sampling(short_side=24), silent, tmp_path / "cache")
    assert torch.equal(shot.frame(0), data.read_image(tmp_path / "f.png", 24))


@pytest.mark.parametrize("stride", [0.05, 0.12, 0.4])
def test_strides_are_in_seconds_at_a_variable_rate(stride: float) -> None:
    steps = np.random.default_rng(1).choice([10_000, 30_000, 90_000, 400_000], 60)
    times = np.cumsum(steps)
    wanted = set()
    for start in range(60):
        clip = [min(range(60), key=lambda i: abs(times[i] - times[start] - k * stride * 1e6)) for k in range(3)]
        near = all(abs(times[i] - times[start] - k * stride * 1e6) <= stride * 5e5 for k, i in enumerate(clip))
        near = near and times[start] + 2 * stride * 1e6 <= times[-1] + np.median(np.diff(times)) / 2
        if near and clip == sorted(set(clip)):
            wanted.add(tuple(clip))
    found = footage.clip_frames(times, 3, stride)
    assert wanted and {tuple(row) for row in found.tolist()} == wanted


def test_a_stride_shorter_than_a_frame_means_the_next_frame() -> None:
    times = np.arange(5) * 40_000
    assert footage.clip_frames(times, 2, 0.01).tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]
    assert footage.clip_frames(times, 2, 0.08).tolist() == [[0, 2], [1, 3], [2, 4]]
    assert footage.clip_frames(times, 9, None).shape == (0, 9)
    assert footage.clip_frames(times[:1], 1, 0.5).tolist() == [[0]]


def test_a_gap_in_time_and_a_clock_set_back_end_a_shot(tmp_path: Path) -> None:
    images = [scene(1)] * 12
    gap = write_film(tmp_path / "gap.mkv", images, [i * 40 + (900 if i >= 5 else 0) for i in range(12)])
    assert [len(shot) for shot in open_footage(gap, Sampling(), silent, tmp_path / "cache")] == [5, 7]
    parts = [tmp_path / "one.ts", tmp_path / "two.ts"]
    for part in parts:
        make_clip(part, frames=20)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    pictures = list(films.read_film(films.Film("joined", (joined,)), lambda _: None))
    assert [i for i, picture in enumerate(pictures) if picture.joined] == [20]
    assert all(a.time < b.time for a, b in itertools.pairwise(pictures))


@pytest.mark.parametrize("size", [(64, 48), (53, 37), (960, 720)])
def test_colours_are_those_that_the_runtime_sees(tmp_path: Path, size: tuple[int, int]) -> None:
    clip = tmp_path / "clip.mp4"
    make_clip(clip, size=size, frames=3)
    with VideoFile(str(clip)) as source:
        expected = [frame.image for frame in source.frames()]
    (shot,) = open_footage(clip, Sampling(short_side=2000), silent, tmp_path / "cache")
    for index, image in enumerate(expected):
        difference = np.abs(shot.frame(index).permute(1, 2, 0).numpy().astype(int) - image)
        assert difference.mean() < 1 and np.percentile(difference, 95) <= 2


def test_numbered_frames_are_sorted_by_number_and_told_apart_by_prefix(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for prefix, seed in (("a_", 1), ("b_", 2)):
        for number in (8, 9, 10, 11, 12):
            Image.fromarray(scene(seed, number)).save(frames / f"{prefix}{number}.png")
    (frames / "a_13.png").write_bytes(b"no picture")
    Image.fromarray(scene(1)[:30]).save(frames / "b_13.png")
    Image.fromarray(scene(1)).save(frames / "cover.png")
    warnings: list[str] = []
    a, b = open_footage(frames, Sampling(), warnings.append, tmp_path / "cache")
    assert (a.video, b.video) == ("a", "b")
    assert torch.equal(a.frame(2), torch.from_numpy(scene(1, 10)).permute(2, 0, 1))
    assert [float(b.seconds(index)) for index in range(5)] == [0, 0.04, 0.08, 0.12, 0.16]
    assert len(warnings) == 3
    assert [any(word in text for text in warnings) for word in ("cover.png", "a_13.png", "96x30")] == [True] * 3


def test_the_cache_spares_decoding_and_is_made_anew_if_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    film = write_film(tmp_path / "film.mkv", [scene(1, step) for step in range(6)])
    (first,) = open_footage(film, Sampling(), silent, cache)
    expected = first.frame(5)
    (index,) = cache.glob("*.json")
    (frames,) = cache.glob("*.npy")
    whole = frames.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(films, "read_film", lambda *_: pytest.fail("decoded again"))
        assert torch.equal(open_footage(film, Sampling(), silent, cache)[0].frame(5), expected)
    for damage in (b"", b"\x93NUMPY\x01\x00", whole[:-1], whole + b"x", whole.replace(b"(6, 3", b"(5, 3")):
        frames.unlink()
        frames.write_bytes(damage)
        assert torch.equal(open_footage(film, Sampling(), silent, cache)[0].frame(5), expected)
    for text in ("", "{}", '{"times": [0], "starts": [1], "sharpness": [1], "size": [1, 1]}', "[1]"):
        index.write_text(text)
        assert len(open_footage(film, Sampling(), silent, cache)[0]) == 6
    assert not list(cache.glob(".*"))


def test_a_film_that_changed_is_decoded_again(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mkv", [scene(1)] * 3)
    (before,) = open_footage(film, Sampling(), silent, tmp_path / "cache")
    write_film(film, [scene(2)] * 4)
    (after,) = open_footage(film, Sampling(), silent, tmp_path / "cache")
    assert len(after) == 4 and not torch.equal(before.frame(0), after.frame(0))
    assert before.key(0) != after.key(0)


def test_a_limit_takes_whole_clips_from_all_over_the_film(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mkv", [scene(1, step) for step in range(100)])
    size = 3 * SIZE[0] * SIZE[1]
    sampling = Sampling(length=3, stride_seconds=0.08, gigabytes=30 * size / 1e9)
    (shot,) = open_footage(film, sampling, silent, tmp_path / "cache")
    (whole,) = open_footage(film, Sampling(), silent, tmp_path / "cache")
    assert len(whole.kept) == 100 and 20 <= len(shot.kept) <= 30
    clips = shot.clips(3, 0.08)
    assert all(clip == (clip[0], clip[0] + 2, clip[0] + 4) for clip in clips) and len(clips) >= 8
    assert {clip[0] // 25 for clip in clips} == {0, 1, 2, 3}
    assert torch.equal(shot.frame(clips[-1][2]), whole.frame(clips[-1][2]))
    assert shot.key(7) == whole.key(7)
    with pytest.raises(IndexError, match="not kept"):
        shot.frame(next(index for index in range(100) if index not in shot.kept))


def test_shots_travel_to_other_processes_without_their_pixels(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mkv", [scene(1, step) for step in range(30)])
    (shot,) = open_footage(film, Sampling(), silent, tmp_path / "cache")
    shot.frame(0)
    packed = pickle.dumps(shot)
    assert len(packed) < 10_000
    assert torch.equal(pickle.loads(packed).frame(3), shot.frame(3))


def test_the_cache_lies_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGAN_CACHE", str(tmp_path / "here"))
    open_footage(write_film(tmp_path / "film.mkv", [scene(1)]), Sampling(), silent)
    assert len(list((tmp_path / "here" / "frames").glob("*.npy"))) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="STREAMGAN_CACHE"):
        open_footage(tmp_path / "film.mkv", Sampling(), silent, tmp_path / "file")


def test_what_cannot_be_read_is_named_and_a_folder_goes_on_without_it(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    broken = tmp_path / "films" / "broken.mp4"
    broken.write_bytes(b"\x00" * 500)
    with pytest.raises(SourceError, match=r"broken\.mp4: cannot be read as a video"):
        open_footage(broken, Sampling(), silent, tmp_path / "cache")
    write_film(tmp_path / "films" / "good.mkv", [scene(1)] * 3)
    warnings: list[str] = []
    assert len(open_footage(tmp_path / "films", Sampling(), warnings.append, tmp_path / "cache")) == 1
    assert len(warnings) == 1 and "broken.mp4" in warnings[0]
    with pytest.raises(SourceError, match="no such file or folder"):
        open_footage(tmp_path / "missing", Sampling(), silent)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no numbered frames"):
        open_footage(tmp_path / "empty", Sampling(), silent)
    with pytest.raises(UsageError, match="stride_seconds: 0 given"):
        Sampling(stride_seconds=0)
