"""Where frames come from: any file, pipe or URL that FFmpeg opens."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
from av.stream import Disposition

from streamgan.api import Frame, Selection, Source, VideoInfo, hookimpl
from streamgan.reading import network
from streamgan.reading.feed import STDIN, Feed
from streamgan.reading.reader import Reader

WHOLE = Selection()
"""From beginning to end."""


class VideoFile(Source):
    """Frames of a file, a pipe (``-``) or a URL, decoded in threads, upright, in RGB, each with the time that the file
    gives it.

    Times are those of the stream, also with a selection: it is the sink that lets a cut begin at 0.
    """

    threads: int = 0
    """How many threads decode; 0 for one per core. Takes effect if set before `info` is read."""
    skip: int = 0
    """How many frames of the selection to leave out at the beginning, since an earlier run has made them: they are
    decoded and counted as ever, but do not become RGB. Takes effect if set before `frames` is called."""
    planar: bool = False
    """Whether frames may be a `PlanarFrame`, where that is what is decoded. Takes effect as `skip` does."""

    def __init__(self, location: str, selection: Selection = WHOLE) -> None:
        self.notes: list[str] = []
        self._location, self._selection = location, selection
        self._feed = Feed(location, selection.stream)
        self._reader: Reader | None = None

    @classmethod
    def accepts(cls, location: str) -> bool:
        """Any location: this is the source of last resort."""
        return True

    @property
    def info(self) -> VideoInfo:
        """What is known of the video; decodes its first wanted frame.

        Raises:
            SourceError: if nothing can be decoded, or nothing lies within the selection.
        """
        return self._start().info

    def frames(self) -> Iterator[Frame]:
        """Yields every frame of the selection but the first `skip`, once.

        Raises:
            SourceError: if nothing can be decoded, nothing lies within the selection, or a frame is damaged and that is
                to end it.
        """
        reader = self._start()
        left_out = [*self._other_videos(), *self._left_behind()]
        try:
            yield from reader.frames(self.skip, self.planar)
        finally:
            self.notes, self.lost, self.repeated = [*left_out, *reader.notes], reader.lost, reader.repeated

    def close(self) -> None:
        """Closes the file."""
        self._feed.close()

    def _start(self) -> Reader:
        """The reader, made on first use so that `threads` can be set before."""
        if self._reader is None:
            self._reader = Reader(self._feed, self._selection, self._location, self.threads)
        return self._reader

    def _other_videos(self) -> Iterator[str]:
        """One line for each video stream that is not translated."""
        chosen = self._feed.stream.index
        for stream in self._feed.container.streams.video:
            codec = stream.codec_context.name if stream.codec_context else "unknown codec"
            if stream.index == chosen:
                continue
            if stream.disposition & Disposition.attached_pic:
                yield f"cover picture {stream.index} ({codec}) was left out"
            else:
                yield f"video stream {stream.index} ({codec}) was left out: only stream {chosen} is translated"

    def _left_behind(self) -> Iterator[str]:
        """One line if sound or subtitles are lost, as they are where a location cannot be read a second time."""
        kinds = [stream.type for stream in self._feed.container.streams if stream.type in ("audio", "subtitle")]
        if kinds and (self._location == STDIN or network.is_network(self._location)):
            yield f"{' and '.join(sorted(set(kinds)))} of {self._location} were left out: only the video is translated"


@hookimpl
def register_sources(register: Callable[[str, type[Source]], None]) -> None:
    """Brings files and URLs, for all that nothing else takes."""
    register("file", VideoFile)
