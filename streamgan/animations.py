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
from av.container import OutputContainer
from av.filter import Graph
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from streamgan import outputs
from streamgan.api import Encoding, Frame, Sink, SinkError, UsageError, VideoInfo, hookimpl
from streamgan.imagefile import NUMBER


@dataclasses.dataclass(frozen=True)
class _Kind:
    """What FFmpeg has to be told for one kind of file."""

    codec: str
    pixels: str
    clock: Fraction
    """Seconds per tick."""
    shortest: int = 1
    """Ticks that a frame must last: browsers slow down what is shorter."""
    options: tuple[tuple[str, str], ...] = ()
    endless: tuple[str, str] = ("loop", "0")


_KINDS = {
    ".gif": _Kind("gif", "pal8", Fraction(1, 100), shortest=2),
    ".webp": _Kind("libwebp_anim", "bgra", Fraction(1, 1000), shortest=11, options=(("quality", "85"),)),
    ".apng": _Kind("apng", "rgb24", Fraction(1, 1000), shortest=11, endless=("plays", "0")),
}
_DEFAULT = Encoding()
_KEEP_DURATION = 1 << 8  # AV_CODEC_FLAG_FRAME_DURATION: else the encoder forgets how long the last frame lasts


class AnimationSink(Sink):
    """Writes ``clip.gif``, ``clip.webp`` or ``clip.apng``, which repeats for ever; one frame makes a still image.

    Each frame of a GIF has a palette of its own, 256 colours with an ordered dither. Times are rounded to the file's
    clock, 1/100 s or 1/1000 s; frames that would last shorter than browsers show are left out and counted. WebP is made
    in memory. There is no sound.
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
        self._partial: Path | None = None
        self._container: OutputContainer | None = None
        self._palette: Graph | None = None
        self._reformatter = VideoReformatter()
        self._origin = Fraction(0)
        self._last: int | None = None
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
            context.width, context.height, context.pix_fmt = info.width, info.height, self._kind.pixels
            context.time_base = stream.time_base = self._kind.clock
            context.thread_count = self._encoding.threads
            context.flags |= _KEEP_DURATION
            self._stream = stream
            if self._kind.pixels == "pal8":
                self._palette = _palette(info, self._kind.clock)
            self._container.start_encoding()

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
        self._last = pts
        with self._failures():
            picture = av.VideoFrame.from_ndarray(frame.image, format="rgb24")
            picture.pts, picture.time_base = pts, clock
            picture.duration = max(shortest, round(frame.duration * frame.time_base / clock))
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

    def _converted(self, picture: av.VideoFrame) -> av.VideoFrame:
        """A picture as the encoder takes it."""
        if self._palette is None:
            return self._reformatter.reformat(picture, format=self._kind.pixels)
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


def _palette(info: VideoInfo, clock: Fraction) -> Graph:
    """RGB to 256 colours, chosen for each frame; an ordered dither stands still where the picture does."""
    graph = Graph()
    taken = graph.add_buffer(width=info.width, height=info.height, format=av.VideoFormat("rgb24"), time_base=clock)
    split, chosen = graph.add("split"), graph.add("palettegen", "stats_mode=single")
    used, given = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=4"), graph.add("buffersink")
    taken.link_to(split)
    split.link_to(chosen, 0, 0)
    split.link_to(used, 1, 0)
    chosen.link_to(used, 0, 1)
    used.link_to(given)
    graph.configure()
    return graph


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
