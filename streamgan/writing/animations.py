"""Short films for sharing: GIF, WebP and APNG, which browsers and messengers play over and over."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
from av.container import OutputContainer
from av.filter import Graph
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from streamgan.api import Encoding, Frame, Sink, SinkError, UsageError, VideoInfo, hookimpl
from streamgan.frames.convert import fitted, over_white
from streamgan.frames.imagefile import encode_image
from streamgan.frames.imagenames import NUMBER
from streamgan.writing import outputs


@dataclasses.dataclass(frozen=True)
class _Kind:
    """What FFmpeg has to be told for one kind of file."""

    codec: str
    pixels: str
    transparent: str
    """The pixel format for frames with an alpha."""
    clock: Fraction
    """Seconds per tick."""
    shortest: int = 1
    """Ticks that a frame must last: browsers slow down what is shorter."""
    options: tuple[tuple[str, str], ...] = ()
    endless: tuple[str, str] = ("loop", "0")


_KINDS = {
    ".gif": _Kind("gif", "pal8", "pal8", Fraction(1, 100), shortest=2),
    ".webp": _Kind("libwebp_anim", "bgra", "bgra", Fraction(1, 1000), shortest=11, options=(("quality", "85"),)),
    ".apng": _Kind("apng", "rgb24", "rgba", Fraction(1, 1000), shortest=11, endless=("plays", "0")),
}
_DEFAULT = Encoding()
_KEEP_DURATION = 1 << 8  # AV_CODEC_FLAG_FRAME_DURATION: else the encoder forgets how long the last frame lasts


class AnimationSink(Sink):
    """Writes ``clip.gif``, ``clip.webp`` or ``clip.apng``, which repeats for ever; one frame makes a still image.

    Each frame of a GIF has a palette of its own, 256 colours with an ordered dither. Times are rounded to the file's
    clock, 1/100 s or 1/1000 s; frames that would last shorter than browsers show are left out and counted. WebP is made
    in memory. Transparency is kept, in a GIF as all or nothing. There is no sound.
    """

    def __init__(self, location: str, encoding: Encoding = _DEFAULT) -> None:
        """Checks all that can be checked before a frame is there.

        Raises:
            UsageError: if the file exists, or is the input.
            SinkError: if the folder does not take files.
        """
        self.notes: list[str] = []
        self._path, self._encoding = Path(location), encoding
        self._kind = _KINDS[self._path.suffix.lower()]
        outputs.check_target(self._path, encoding)
        if encoding.crf is not None or encoding.preset is not None:
            self.notes.append("--crf and --encoder-preset have no meaning for animations")
        self._alpha = False
        self._partial: Path | None = None
        self._container: OutputContainer | None = None
        self._palette: Graph | None = None
        self._reformatter = VideoReformatter()
        self._origin = Fraction(0)
        self._last: int | None = None
        self._only: Frame | None = None
        self._last_duration = 0
        self._left_out = 0

    @classmethod
    def accepts(cls, location: str) -> bool:
        """A name that ends in ``.gif``, ``.webp`` or ``.apng`` and has no place for a number."""
        path = Path(location)
        return "://" not in location and not NUMBER.search(path.name) and path.suffix.lower() in _KINDS

    def open(self, info: VideoInfo) -> None:
        """Creates the output and writes its header.

        Raises:
            SinkError: if it cannot be created, as for more pixels than the kind of file can have.
        """
        self._partial = outputs.partial_name(self._path)
        if info.sample_aspect_ratio != 1:
            self.notes.append(f"pixels of {info.sample_aspect_ratio} were kept, which animations show as squares")
        if self._encoding.audio != "none" and _has_sound(self._encoding.copy_from):
            self.notes.append(f"audio was left out: {self._path.suffix[1:]} cannot hold it")
        self._check_samples(info)
        with self._failures():
            self._container = av.open(
                f"file:{self._partial}",
                "w",
                format=self._path.suffix[1:].lower(),
                container_options=dict([self._kind.endless]),
            )
            stream = self._container.add_stream(
                self._kind.codec, rate=info.frame_rate, options=dict(self._kind.options)
            )
            assert isinstance(stream, VideoStream)
            context = stream.codec_context
            context.width, context.height = info.width, info.height
            context.pix_fmt = self._kind.transparent if self._alpha else self._kind.pixels
            context.time_base = stream.time_base = self._kind.clock
            context.thread_count = self._encoding.threads
            context.flags |= _KEEP_DURATION
            self._stream = stream
            if self._kind.pixels == "pal8":
                self._palette = _palette(info, self._kind.clock, "rgba" if self._alpha else "rgb24")
            self._container.start_encoding()

    def _check_samples(self, info: VideoInfo) -> None:
        """Decides on transparency, and says what is lost of it and of the depth."""
        kind = self._path.suffix[1:].lower()
        self._alpha = info.alpha and self._encoding.alpha == "keep"
        if info.alpha and not self._alpha:
            self.notes.append("transparency was left out: shown over white")
        if self._alpha and kind == "gif":
            self.notes.append("transparency was kept as all or nothing: gif holds no more")
        if info.bits > 8:
            self.notes.append(f"{info.bits} bits were rounded to 8: {kind} holds no more")

    def write(self, frame: Frame) -> None:
        """Encodes one frame.

        Raises:
            SinkError: if it cannot be written.
        """
        assert self._container is not None, "open comes before write"
        if self._last is None:
            self._origin = frame.time
        clock, shortest = self._kind.clock, self._kind.shortest
        pts = round((frame.time - self._origin) / clock)
        if self._last is not None and pts < self._last + shortest:
            self._left_out += 1
            return
        self._only = frame if self._last is None else None
        self._last = pts
        with self._failures():
            picture = self._picture(frame)
            picture.pts, picture.time_base = pts, clock
            picture.duration = max(shortest, round(frame.duration * frame.time_base / clock))
            self._last_duration = picture.duration
            self._container.mux(self._stream.encode(self._converted(picture)))

    def close(self) -> None:
        """Completes the output and gives it its name.

        Raises:
            SinkError: if it cannot be completed; nothing is left behind then.
        """
        if self._container is None:
            return
        try:
            with self._failures():
                self._container.mux(self._stream.encode(None))
                self._container.close()
                assert self._partial is not None
                if self._path.suffix.lower() == ".webp":
                    if self._only is not None:  # an animation of one frame is none, and few programs read it
                        self._partial.write_bytes(encode_image(self._only, ".webp"))
                    else:
                        _set_last_duration(self._partial, self._last_duration)
                outputs.publish(self._partial, self._path, self._encoding.overwrite)
            if self._left_out:
                fastest = 1 / (self._kind.shortest * self._kind.clock)
                what = f"{self._path.suffix[1:]} is shown at no more than {float(fastest):.0f} a second"
                self.notes.append(f"{self._left_out} frames were left out: {what}")
            self._container = None
        finally:
            self.abort()

    def abort(self) -> None:
        """Leaves nothing behind."""
        container, self._container = self._container, None
        if container is not None:
            with contextlib.suppress(av.error.FFmpegError, OSError):
                container.close()
        if self._partial is not None:
            with contextlib.suppress(OSError):
                self._partial.unlink(missing_ok=True)

    def _picture(self, frame: Frame) -> av.VideoFrame:
        """A frame as FFmpeg takes it."""
        if not self._alpha:
            return av.VideoFrame.from_ndarray(over_white(frame).image, format="rgb24")
        frame = fitted(frame)
        opaque = np.full(frame.image.shape[:2], 255, np.uint8)
        samples = np.dstack([frame.image, opaque if frame.alpha is None else frame.alpha])
        return av.VideoFrame.from_ndarray(samples, format="rgba")

    def _converted(self, picture: av.VideoFrame) -> av.VideoFrame:
        """A picture as the encoder takes it."""
        if self._palette is None:
            return self._reformatter.reformat(picture, format=self._stream.pix_fmt)
        self._palette.push(picture)
        made = self._palette.pull()
        assert isinstance(made, av.VideoFrame)
        made.duration = picture.duration
        return made

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Turns what FFmpeg and the file system raise into one line."""
        try:
            yield
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if isinstance(error, (SinkError, UsageError)):
                raise
            reason = getattr(error, "strerror", None) or str(error)
            raise SinkError(f"{self._path}: cannot be written ({reason})") from None


def _palette(info: VideoInfo, clock: Fraction, pixels: str) -> Graph:
    """RGB to 256 colours, chosen for each frame; an ordered dither stands still where the picture does."""
    graph = Graph()
    taken = graph.add_buffer(width=info.width, height=info.height, format=av.VideoFormat(pixels), time_base=clock)
    split, chosen = graph.add("split"), graph.add("palettegen", "stats_mode=single")
    used, given = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=4"), graph.add("buffersink")
    taken.link_to(split)
    split.link_to(chosen, 0, 0)
    split.link_to(used, 1, 0)
    chosen.link_to(used, 0, 1)
    used.link_to(given)
    graph.configure()
    return graph


def _set_last_duration(path: Path, milliseconds: int) -> None:
    """Writes how long the last frame of a WebP is shown, which its encoder makes up from those before."""
    with path.open("r+b") as file:
        data, at, last = file.read(), 12, 0
        while at + 8 <= len(data):  # the chunks of the container, by its specification
            last = at if data[at : at + 4] == b"ANMF" else last
            length = int.from_bytes(data[at + 4 : at + 8], "little")
            at += 8 + length + length % 2
        if last:
            file.seek(last + 20)
            file.write(milliseconds.to_bytes(3, "little"))


def _has_sound(location: str | None) -> bool:
    """Whether the input has audio that is lost here."""
    if location is None:
        return False
    try:
        with av.open(f"file:{location}") as container:
            return bool(container.streams.audio)
    except (av.error.FFmpegError, ValueError):
        return False


@hookimpl
def register_sinks(register: Callable[[str, type[Sink]], None]) -> None:
    """Brings GIF, WebP and APNG."""
    register("animation", AnimationSink)
