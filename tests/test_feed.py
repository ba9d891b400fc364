"""Feeds: files, pipes and connections that break off give every packet, or say what is missing."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest
from clips import read_pts

from streamgan.api import Selection, SourceError
from streamgan.reading import network
from streamgan.reading.feed import Feed
from streamgan.reading.sources import VideoFile

MakeClip = Callable[..., Path]
GRAINY = {"crf": "0", "preset": "ultrafast", "g": "10"}


class Server:
    """Serves one file over HTTP on this machine, and breaks off in the middle as often as it is told."""

    def __init__(self, body: bytes, ranges: bool, breaks: int) -> None:
        self.requests = 0
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                server.requests += 1
                asked = self.headers.get("Range", "bytes=0-") if ranges else "bytes=0-"
                start = int(asked.removeprefix("bytes=").split("-")[0])
                self.send_response(206 if ranges else 200)
                self.send_header("Content-Length", str(len(body) - start))
                if ranges:
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                self.end_headers()
                stop = start + (len(body) - start) * 2 // 3 if server.requests <= breaks else len(body)
                with contextlib.suppress(OSError):  # the reader may have had enough
                    self.wfile.write(body[start:stop])

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/film"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts servers that end with the test."""
    servers: list[Server] = []

    def start(path: Path, ranges: bool = True, breaks: int = 0) -> Server:
        servers.append(Server(path.read_bytes(), ranges, breaks))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits a hundredth of the time for lost connections."""
    monkeypatch.setattr(network, "_WAITS", (0.01, 0.02, 0.04))


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_a_web_server_that_breaks_off_and_knows_ranges_costs_nothing(
    make_clip: MakeClip, serve: Callable[..., Server], ending: str
) -> None:
    path = make_clip(name=f"film.{ending}", size=(160, 120), options=GRAINY, pts=range(0, 100 * 512, 512))
    server = serve(path, breaks=3)
    with VideoFile(server.url) as source:
        frames = list(source.frames())
    assert [frame.time for frame in frames] == read_pts(path)
    assert server.requests > 1


@pytest.mark.parametrize("ending", ["mkv", "ts"])
def test_a_web_server_without_ranges_is_read_again_to_where_it_broke_off(
    make_clip: MakeClip, serve: Callable[..., Server], impatient: None, ending: str
) -> None:
    path = make_clip(name=f"film.{ending}", size=(160, 120), options=GRAINY, pts=range(0, 100 * 512, 512))
    with VideoFile(serve(path, ranges=False, breaks=2).url) as source:
        frames = list(source.frames())
        assert source.notes == ["the connection broke off 2 times and came back, nothing is missing"]
    assert [frame.time for frame in frames] == read_pts(path)


@pytest.mark.parametrize("policy", ["skip", "stop"])
def test_a_web_server_that_stays_away(
    make_clip: MakeClip, serve: Callable[..., Server], impatient: None, policy: str
) -> None:
    path = make_clip(name="film.ts", size=(160, 120), options=GRAINY, pts=range(0, 100 * 512, 512))
    server = serve(path, ranges=False, breaks=99)
    with VideoFile(server.url, Selection(on_error=policy)) as source:  # type: ignore[arg-type]
        if policy == "stop":
            with pytest.raises(SourceError, match=r"connection was lost .* did not come back"):
                list(source.frames())
            return
        assert 40 < len(list(source.frames())) < 100
        assert any("did not come back" in note for note in source.notes)
    assert server.requests == 4


def test_start_of_a_web_film(make_clip: MakeClip, serve: Callable[..., Server]) -> None:
    path = make_clip(name="film.mkv", options=GRAINY, pts=range(0, 100 * 512, 512))
    for ranges in (True, False):
        with VideoFile(serve(path, ranges=ranges).url, Selection(Fraction(2), Fraction(3))) as source:
            assert [frame.time * 25 for frame in source.frames()] == list(range(50, 75))


def test_nobody_there_is_one_line() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    for protocol in ("http", "rtsp", "rtmp", "tcp"):
        with pytest.raises(SourceError, match="cannot be read as a video") as error:
            VideoFile(f"{protocol}://127.0.0.1:{port}/film")
        assert "\n" not in str(error.value)


def test_a_live_stream_that_drops_goes_on_with_a_gap(make_clip: MakeClip, impatient: None) -> None:
    """A sender over TCP that goes away twice; each time its clock begins anew."""
    path = make_clip(name="live.ts", options={"g": "10", "preset": "ultrafast"}, pts=range(0, 30 * 512, 512))
    listener = socket.create_server(("127.0.0.1", 0))

    def send() -> None:
        for _ in range(3):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(path.read_bytes())
        listener.close()

    threading.Thread(target=send, daemon=True).start()
    with VideoFile(f"tcp://127.0.0.1:{listener.getsockname()[1]}") as source:
        frames = list(source.frames())
    times = [frame.time for frame in frames]
    assert len(frames) == 3 * 30
    assert all(Fraction(1, 26) < after - before < 1 for before, after in itertools.pairwise(times))
    assert times[30] - times[29] > Fraction(1, 25) < times[60] - times[59]
    assert source.notes[-1].startswith("the connection broke off 2 times and came back")
    assert "did not come back" in source.notes[-2]


def test_multicast_and_plain_udp_are_read(make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_WAITS", ())
    monkeypatch.setattr(network, "PATIENCE", 0.5)
    path = make_clip(name="live.ts", options={"g": "5", "preset": "ultrafast"}, pts=range(0, 50 * 512, 512))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()

    def send() -> None:
        body = path.read_bytes()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(8):
                for start in range(0, len(body), 7 * 188):
                    sender.sendto(body[start : start + 7 * 188], address)
                    time.sleep(0.002)

    threading.Thread(target=send, daemon=True).start()
    with VideoFile(f"udp://{address[0]}:{address[1]}", Selection(frames=60)) as source:
        frames = list(source.frames())
    assert len(frames) == 60
    assert all(after.pts > before.pts for before, after in itertools.pairwise(frames))


COUNT = """
from streamgan.reading.sources import VideoFile
from streamgan.api import Selection, SourceError
from fractions import Fraction
import sys
try:
    with VideoFile("-", Selection(Fraction(sys.argv[1]) if len(sys.argv) > 1 else None)) as source:
        print(*[frame.time for frame in source.frames()])
        print(*source.notes, sep="|")
except SourceError as error:
    sys.exit(str(error))
"""


def from_pipe(path: Path, *arguments: str, seekable: bool = False) -> tuple[list[Fraction], str]:
    """Reads ``-`` in a process of its own, whose standard input is a pipe, or the file itself."""
    command = [sys.executable, "-c", COUNT, *arguments]
    if seekable:
        with path.open("rb") as file:
            done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
    else:
        with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as cat:
            done = subprocess.run(command, stdin=cat.stdout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    times, notes = done.stdout.splitlines()
    return [Fraction(word) for word in times.split()], notes


@pytest.mark.parametrize("name", ["film.mkv", "film.ts", "film.flv", "film.h264"])
def test_standard_input(make_clip: MakeClip, name: str) -> None:
    path = make_clip(name=name)
    times, notes = from_pipe(path)
    expected = [Fraction(tick, 25) for tick in range(20)] if name.endswith("h264") else read_pts(path)
    assert times == expected
    assert notes == ""


def test_standard_input_from_a_start_on(make_clip: MakeClip) -> None:
    path = make_clip(name="film.mkv", audio=True)
    assert from_pipe(path, "0.4") == (
        [Fraction(tick, 25) for tick in range(10, 20)],
        "audio of - were left out: only the video is translated",
    )


def test_a_file_as_standard_input_can_be_searched(make_clip: MakeClip) -> None:
    """The index of such an MP4 lies at its end."""
    times, _ = from_pipe(make_clip(name="film.mp4"), "0.4", seekable=True)
    assert times == [Fraction(tick, 25) for tick in range(10, 20)]


def test_a_terminal_as_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda _: True)
    with pytest.raises(SourceError, match="-: standard input is a terminal"):
        VideoFile("-")


def two_videos(path: Path, make_clip: MakeClip) -> Path:
    """A file with a small and a large video, and a tone."""
    small, large = make_clip(name="small.mkv"), make_clip(name="large.mkv", size=(128, 96), audio=True)
    with av.open(str(path), "w") as output, av.open(str(small)) as first, av.open(str(large)) as second:
        streams = [*first.streams, *second.streams]
        targets = {stream: output.add_stream_from_template(stream) for stream in streams}
        for packet in (*first.demux(), *second.demux()):
            if packet.dts is not None:
                packet.stream = targets[packet.stream]
                output.mux(packet)
    return path


def test_a_stream_by_its_number(make_clip: MakeClip, tmp_path: Path) -> None:
    path = str(two_videos(tmp_path / "two.mkv", make_clip))
    for number, width in ((None, 128), (0, 64), (1, 128)):
        with VideoFile(path, Selection(stream=number)) as source:
            assert source.info.width == width
    for number in (2, 7, -1):
        with pytest.raises(SourceError, match=rf"stream {number} is no video .* 0 \(h264 64x48\), 1 \(h264 128x96\)"):
            Feed(path, number)
