"""What a strict person holds against a translated file beside its source, one sentence for each fault.

Both are `ffprobe.Film`; the translator is one that changes nothing.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

import ffprobe
import numpy as np
import numpy.typing as npt
from ffprobe import Film, Piece, Track

_RESTART = Fraction(1, 3)
"""A clock that goes back by this or more was started anew; by less, two frames were written in the wrong order."""
_SYNC = Fraction(1, 1000)
_NEAR, _FAR = 6.0, 16.0
"""Mean differences of thumbnails, in levels of 255: of the same picture encoded anew, and of a clearly other one."""
_DEEPER = {"smpte2084": "PQ", "arib-std-b67": "HLG"}
_TECHNICAL = ("encoder", "software", "major_brand", "minor_version", "compatible_brands", "duration", "handler_name")
_ALPHA = ("rgba", "bgra", "argb", "abgr", "yuva", "ya8", "ya16", "gbrap", "pal8")
_COLOUR = ("color_space", "color_primaries", "color_transfer")
_UNSAID = (None, "unknown", "reserved", "unspecified")
_PICTURES = ("mjpeg", "png", "webp", "tiff", "bmp", "ppm", "pgm")


def faults(source: Film, output: Film, notes: Sequence[str], frames: int | None = None) -> list[str]:
    """Everything that is wrong with an output.

    Args:
        source: what was read.
        output: what was written.
        notes: what the program said of the run, one line each.
        frames: how many of the source's frames were asked for; None for all.
    """
    text = "\n".join(notes)
    if output.video is None or source.video is None or not output.frames:
        return ["no video in it"]
    if is_image(source) != is_image(output):
        return [f"an image became {output.container}" if is_image(source) else "a film became an image"]
    found = [*_frames(source, output, frames), *_geometry(source, output, text), *_colour(source, output, text)]
    found += [*_depth(source, output, text), *_content(source, output, text)]
    if not is_image(output):
        found += [*_tracks(source, output, text), *_tags(source, output, text)]
        found += _chapters(source, output, text) if frames is None else []
        found += _texts(source, output) if frames is None else []
        found += [] if frames is not None else _joined(source, output) if _restarts(source) else _sound(source, output)
    return found


def is_image(film: Film) -> bool:
    """Whether a file is one picture, not a film."""
    return film.container.endswith("_pipe") or film.container == "image2"


def _is_copy(before: str, after: str) -> bool:
    """Whether sound is as it was, by the names of its codecs; MP4 has one name for MP2 and MP3, one for all PCM."""
    kinds = [("pcm" if codec.startswith("pcm") else codec.replace("mp2", "mp3")) for codec in (before, after)]
    return kinds[0] == kinds[1]


def _frames(source: Film, output: Film, frames: int | None) -> Iterator[str]:
    """Number and times of the frames."""
    wanted, got = source.frames[:frames], output.frames
    if len(wanted) != len(got):
        yield f"{len(got)} frames, expected {len(wanted)}"
        return
    if is_image(output):
        return
    assert output.video is not None
    half, since, anchor = output.video.tick / 2, got[0].time, got[0].time - wanted[0].time
    off: list[str] = []
    for number in range(1, len(got)):
        before, now, then = wanted[number - 1].time, wanted[number].time, got[number].time
        if then <= got[number - 1].time:
            off.append(f"frame {number} does not come after frame {number - 1}")
        elif now > before:
            if abs(then - now - anchor) > half:
                off.append(f"frame {number} at {float(then - since):.6f} s, expected {float(now + anchor - since):.6f}")
        elif before - now >= _RESTART:
            anchor = then - now
            step, usual = then - got[number - 1].time, got[1].time - got[0].time
            if not usual / 2 <= step <= 2 * usual:
                off.append(f"frame {number}, after the clock was started anew, comes after {float(step):.6f} s")
    yield from off[:2]
    length = output.video.duration or got[-1].time + (got[-1].duration or 0) - since
    spans = [wanted[-1].time + anchor - since + lasts for lasts in _last_durations(source, frames)]
    if spans and all(abs(span - length) > _SYNC for span in spans):
        yield f"lasts {float(length):.6f} s, expected {' or '.join(f'{float(span):.6f} s' for span in spans)}"


def _last_durations(film: Film, frames: int | None) -> list[Fraction]:
    """How long the last frame may last; none if the file does not say.

    MP4 stores the gap to what is decoded next, which of the last picture need not be its own: then as long as the one
    before is as good.
    """
    shown = film.frames[:frames]
    if not shown[-1].duration:
        return []
    return [shown[-1].duration, *(after.time - before.time for before, after in itertools.pairwise(shown[-2:]))]


def _restarts(source: Film) -> list[int]:
    """Numbers of the frames at which the clock of the source's video is started anew."""
    return restarts([frame.time for frame in source.frames])


def restarts(times: Sequence[Fraction]) -> list[int]:
    """At which of some times the clock was started anew."""
    pairs = itertools.pairwise(times)
    return [number for number, (before, now) in enumerate(pairs, 1) if before - now >= _RESTART]


def _joined(source: Film, output: Film) -> Iterator[str]:
    """Where clocks were started anew, sound and picture begin beside each other as they did in the source."""
    audio = [[track for track in film.tracks if track.kind == "audio"] for film in (source, output)]
    shown = _restarts(source)
    for before, after in zip(*audio, strict=False):
        heard = restarts([piece.time for piece in before.pieces])
        if len(heard) != len(shown) or len(before.pieces) != len(after.pieces):
            yield f"audio stream {before.index}: {len(heard)} restarts of {len(shown)}, {len(after.pieces)} packets"
            continue
        for number, packet in zip(shown, heard, strict=True):
            wanted = before.pieces[packet].time - source.frames[number].time
            off = after.pieces[packet].time - output.frames[number].time - wanted
            if abs(off) > _SYNC:
                yield f"audio stream {before.index} is off by {float(off) * 1000:.1f} ms after frame {number}"


def _geometry(source: Film, output: Film, text: str) -> Iterator[str]:
    """Size, shape of the pixels, rotation, fields."""
    assert output.video is not None
    if not source.frames or not output.frames:
        return
    if output.sizes != source.sizes[:1]:
        yield f"size {output.sizes}, expected {source.sizes[:1]}"
    if len(source.sizes) > 1 and "size" not in text:
        yield f"no note of the sizes {source.sizes}"
    if output.turned:
        yield f"still to be turned by {output.turned}"
    if output.aspect != source.aspect and "pixels of" not in text:
        yield f"pixels of {output.aspect}, expected {source.aspect}"
    if any(frame.interlaced for frame in output.frames):
        yield "interlaced"
    if any(frame.interlaced for frame in source.frames) and "interlaced" not in text:
        yield "no note that it was interlaced"


def _colour(source: Film, output: Film, text: str) -> Iterator[str]:
    """What the file says of its colours."""
    assert source.video is not None and output.video is not None
    if is_image(output) or output.frames[0].pixels.startswith(("rgb", "bgr", "gbr", "pal", "gray")):
        return
    mapped = is_hdr(source.video) and not is_hdr(output.video)
    if mapped and "tone" not in text:
        yield f"no note of what became of {_DEEPER[source.video.raw['color_transfer']]}"
    for key in _COLOUR:
        said, given = source.video.raw.get(key), output.video.raw.get(key)
        if mapped:
            said = None
        rgb = key == "color_space" and said in ("gbr", "rgb")
        if said not in _UNSAID and not rgb and given != said:
            yield f"{key} {given}, expected {said}"
    if output.video.raw.get("color_space") in _UNSAID:
        yield "does not say its matrix"
    if output.video.raw.get("color_range") in _UNSAID:
        yield "does not say its range"


def is_hdr(track: Track) -> bool:
    """Whether a track says that it is PQ or HLG."""
    return track.raw.get("color_transfer") in _DEEPER


def _depth(source: Film, output: Film, text: str) -> Iterator[str]:
    """Bits of a sample."""
    before, after = ffprobe.bits(source.frames[0].pixels), ffprobe.bits(output.frames[0].pixels)
    if after < min(before, 10) and "bit" not in text:
        yield f"{after} bits, expected {before}, or a note"


def _content(source: Film, output: Film, text: str) -> Iterator[str]:
    """Each frame shows the picture of the same number, and is as transparent."""
    assert source.video is not None and output.video is not None
    if source.decoded is not None or (is_hdr(source.video) and not is_hdr(output.video)):
        return
    wanted, got = _seen(source), _seen(output)
    count = min(len(wanted), len(got))
    if not count:
        yield "ffmpeg decodes no frame of it"
        return
    differences = np.abs(wanted[:count] - got[:count])
    colour, opacity = differences[..., :3].mean(axis=(1, 2, 3)), differences[..., 3].mean()
    if colour.max() > _FAR or colour.mean() > _NEAR:
        worst = int(colour.argmax())
        yield f"pictures differ by {colour.mean():.1f} levels, frame {worst} by {colour[worst]:.1f}"
    if opacity > _NEAR:
        yield f"transparency differs by {opacity:.1f} levels"


def _seen(film: Film) -> npt.NDArray[np.float64]:
    """What is seen of each frame over black, and its opacity, in 8 x 8 fields: ``(N, 8, 8, 4)``, 0 to 255.

    Fields are so coarse because 4:2:0 moves the edges of colours by a pixel.
    """
    fields = film.thumbnails().astype(float)
    opaque = np.full_like(fields[..., :1], 255) if not can_be_transparent(film) else opacity(film)[..., None]
    count = min(len(fields), len(opaque))
    both = np.concatenate([fields[:count] * opaque[:count] / 255, opaque[:count]], axis=-1)
    return both.reshape(count, 8, ffprobe.SIDE // 8, 8, ffprobe.SIDE // 8, 4).mean(axis=(2, 4))


def can_be_transparent(film: Film) -> bool:
    """Whether a film has a place for transparency. CMYK in a JPEG is none, though ffmpeg says so."""
    assert film.video is not None
    if film.video.tags.get("alpha_mode") == "1":
        return True
    return film.video.codec != "mjpeg" and bool(film.frames) and film.frames[0].pixels.startswith(_ALPHA)


def opacity(film: Film) -> npt.NDArray[np.float64]:
    """Opacity of each frame of a film that has a place for it, ``(N, SIDE, SIDE)``, 0 to 255."""
    assert film.video is not None
    decoder = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(film.video.codec)  # ffmpeg's own drop it
    return film.thumbnails(decoder, "rgba")[..., 3].astype(float)


def _tracks(source: Film, output: Film, text: str) -> Iterator[str]:
    """Everything beside the video is there, or named."""
    assert source.video is not None
    kept = {kind: [track for track in output.tracks if track.kind == kind] for kind in ("audio", "subtitle")}
    kept["attachment"] = [track for track in output.tracks if track.kind == "attachment"]
    for track in source.tracks:
        if track.index == source.video.index or _is_named(track, text):
            continue
        if track.kind == "data" and track.codec == "bin_data" and output.chapters:
            continue
        there = kept.get(track.kind)
        if not there:
            yield f"{track.kind} stream {track.index} ({track.codec}) is missing, and no note of it"
            continue
        yield from _kept(track, there.pop(0), text)
    for kind, more in kept.items():
        if more:
            yield f"{len(more)} {kind} streams more than in the source"


def _is_named(track: Track, text: str) -> bool:
    """Whether a note says that a track was left out, or encoded anew."""
    return bool(re.search(rf"(?:stream|picture) {track.index} \([^)]*\) was (?:left out|re-encoded)", text))


def _kept(before: Track, after: Track, text: str) -> Iterator[str]:
    """A track that was copied says of itself what it said."""
    where = f"{before.kind} stream {before.index}"
    named = re.search(rf"stream {before.index} \([^)]*\): .* left out: (.*)", text)
    if before.kind == "audio" and not _is_copy(before.codec, after.codec):
        yield f"{where} became {after.codec}"
    for key in ("language", "title", "filename", "mimetype"):
        if before.tags.get(key, "und") != after.tags.get(key, "und") and not (named and key in named[1]):
            yield f"{where} lost its {key} {before.tags.get(key)}"
    for key in ("default", "forced", "hearing_impaired", "comment"):
        said = [bool(track.raw.get("disposition", {}).get(key)) for track in (before, after)]
        if before.kind != "attachment" and said[0] and not said[1]:
            yield f"{where} is no longer '{key}'"


def _tags(source: Film, output: Film, text: str) -> Iterator[str]:
    """What the file says of itself: title, artist, place."""
    lost = []
    for key, value in source.tags.items():
        plain = key.partition("-")[0]
        if key in _TECHNICAL or (plain != key and plain in source.tags) or source.container == "flv":
            continue
        if _said(value) not in {_said(each) for each in output.tags.values()} and key not in text.lower():
            lost.append(f"{key}={value[:30]}")
    named = re.search(r"^(\d+) tags? (?:was|were) left out", text, re.MULTILINE)
    if len(lost) > (int(named[1]) if named else 0):
        yield f"lost without a note: {', '.join(lost)}"


def _said(value: str) -> str | tuple[float, ...]:
    """A value; of a place (ISO 6709), the numbers, which FFmpeg pads with zeros."""
    place = re.fullmatch(r"((?:[+-]\d+(?:\.\d+)?){2,3})/", value)
    return tuple(float(each) for each in re.findall(r"[+-][\d.]+", place[1])) if place else value


def _chapters(source: Film, output: Film, text: str) -> Iterator[str]:
    """The same chapters at the same times of the film."""
    if not source.chapters or "chapter" in text:
        return
    if len(source.chapters) != len(output.chapters):
        yield f"{len(output.chapters)} chapters, expected {len(source.chapters)}"
        return
    moved = output.frames[0].time - source.frames[0].time
    for before, after in zip(source.chapters, output.chapters, strict=True):
        if before[0] != after[0]:
            yield f"chapter {before[0]} became {after[0]}"
        if abs(before[1] + moved - after[1]) > _SYNC:  # MP4 has no ends of chapters
            yield f"chapter {before[0]} is at {float(after[1]):.3f} s, expected {float(before[1] + moved):.3f}"


def _texts(source: Film, output: Film) -> Iterator[str]:
    """Subtitles come when they came."""
    tracks = [[track for track in film.tracks if track.kind == "subtitle"] for film in (source, output)]
    moved = output.frames[0].time - source.frames[0].time
    for before, after in zip(*tracks, strict=False):
        wanted, got = ([piece.time for piece in track.pieces if _says_something(piece)] for track in (before, after))
        late = [abs(b + moved - a) for b, a in zip(wanted, got, strict=False)]
        if len(wanted) != len(got) or max(late, default=Fraction(0)) > _SYNC:
            times = [", ".join(f"{float(time):.3f}" for time in each) for each in (got, wanted)]
            yield f"subtitles {before.index} are at {times[0]} s, expected {times[1]}"


def _ends(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Begin and end of all pieces together."""
    last = pieces[-1]
    return dataclasses.replace(pieces[0], content=""), Piece(last.time + last.duration, Fraction(0), "")


def _says_something(piece: Piece) -> bool:
    """Whether a subtitle is more than the two bytes with which MP4 clears the screen."""
    return int(piece.content.split()[0]) > 2


def _sound(source: Film, output: Film) -> Iterator[str]:
    """Packets that were copied are all there, and lie where they lay beside the pictures."""
    kept = [track for track in output.tracks if track.kind == "audio"]
    moved = output.frames[0].time - source.frames[0].time
    for before in (track for track in source.tracks if track.kind == "audio"):
        after = next((track for track in kept if _is_copy(before.codec, track.codec)), None)
        if after is None:
            continue
        kept.remove(after)
        where = f"audio stream {before.index}"
        wanted, pieces = before.pieces, after.pieces
        if before.codec.startswith("pcm") and len(wanted) != len(pieces):  # cut into other packets
            wanted, pieces = _ends(wanted), _ends(pieces)
        missing = len(wanted) - len(pieces)
        early = sum(piece.time + piece.duration <= 0 for piece in wanted)
        if not 0 <= missing <= early:
            yield f"{where} has {len(pieces)} packets, expected {len(wanted)}"
            continue
        pairs = list(zip(wanted[missing:], pieces, strict=True))
        late = max((abs(b.time + moved - a.time) for b, a in pairs), default=Fraction(0))
        if late > _SYNC:
            first = pairs[0][1].time - pairs[0][0].time - moved
            yield f"{where} is off by up to {float(late) * 1000:.1f} ms (first packet {float(first) * 1000:+.1f} ms)"
        pcm_in_mp4 = before.codec.startswith("pcm") and "mp4" in output.container  # ffprobe 5.1 takes all for 16 bits
        if not pcm_in_mp4 and "mpegts" not in source.container and any(b.content != a.content for b, a in pairs):
            yield f"{where} holds other bytes"
