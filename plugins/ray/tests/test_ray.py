"""Films made on a Ray cluster of two workers, some of which are killed: all are there, once, and as one machine makes
them."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from subprocess import PIPE

import cv2  # noqa: F401 - before av: loaded after it, OpenCV's window library fails

# isort: split
import av
import numpy as np
import pytest

from streamgan.testing import make_clip

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="streamgan-ray needs Ray")

SURROUNDINGS = os.environ | {
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": uuid.uuid4().hex,  # of this test's own cluster, which nobody else is to enter
    "RAY_USAGE_STATS_ENABLED": "0",
}
CLUSTER = """
import ray, sys
quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
print(ray.init("local", num_cpus=2, object_store_memory=80 << 20, **quiet).address_info["gcs_address"], flush=True)
sys.stdin.read()
"""
"""Runs a cluster until its standard input ends."""
PLUGIN = '''
"""Negatives, by a translator that kills its process once, fails, or takes its time, as an option says."""
import os, signal, time
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from streamgan import api

HERE = Path(__file__).parent

class Trial(api.Translator):
    @dataclass(frozen=True)
    class Options:
        manner: str = ""
    count = 0

    def open(self, context):
        with (HERE / "workers").open("a") as file:
            file.write(f"{os.getpid()} ")

    def translate(self, images):
        self.count += 1
        if self.options.manner == "dies" and self.count == 15 and not (HERE / "died").exists():
            (HERE / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.options.manner == "fails" and images.shape[2] == 80 and self.count == 5:
            raise RuntimeError("it is too wide")
        if self.options.manner == "slow":
            time.sleep(0.1)
        return 255 - images

class Remembering(Trial):
    memory = True

    def reset(self):
        self.before = None

    def translate(self, images):
        self.before = images if self.before is None else np.maximum(images, self.before // 8 * 7)
        return self.before

@api.hookimpl
def register_translators(register):
    register("trial", Trial)
    register("remembering", Remembering)
'''


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two cores."""
    line = [sys.executable, "-c", CLUSTER]
    with subprocess.Popen(line, stdin=PIPE, stdout=PIPE, text=True, env=SURROUNDINGS) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate()  # closes its input


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the plugin, and a preset ``MANNER.yaml`` for each manner of its translator."""
    (tmp_path / "plugin.py").write_text(PLUGIN)
    for manner in ("dies", "fails", "slow"):
        text = f"title: A trial\ntranslator: trial\noptions: {{manner: {manner}}}\n"
        (tmp_path / f"{manner}.yaml").write_text(text)
    (tmp_path / "remembers.yaml").write_text("title: A trial\ntranslator: remembering\n")
    return tmp_path


def command(folder: Path, *arguments: str, address: str | None = None) -> list[str]:
    """``streamgan`` with the plugin; segments of ten frames, so that short films have many."""
    where = ["--address", address, "--workers", "2"] if address else []
    segments = ["--segment", "10", "--threads", "1"] if arguments[0] in ("batch", "run") else []
    return [sys.executable, "-m", "streamgan", "--plugin", str(folder / "plugin.py"), *arguments, *segments, *where]


def streamgan(
    folder: Path, *arguments: str, address: str | None = None, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Runs it in the folder; it must end with this exit code, and say no more than a line if it fails."""
    line = command(folder, *arguments, address=address)
    done = subprocess.run(line, capture_output=True, text=True, cwd=folder, env=SURROUNDINGS, timeout=120)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    return done


def names(folder: Path) -> list[str]:
    """All that lies in a folder, hidden or not."""
    return sorted(path.name for path in folder.iterdir())


def test_films_are_all_made_though_a_worker_is_killed(cluster: str, folder: Path) -> None:
    (folder / "in").mkdir()
    for number in range(4):
        make_clip(folder / f"in/{number}.mp4", frames=20 + 10 * number, audio=number == 3)
    (folder / "in/broken.mp4").write_bytes(b"no film at all")
    arguments = ("batch", "in", "-p", "dies.yaml", "-o", "out/")
    first = streamgan(folder, *arguments, address=cluster, code=1)
    assert "5 films: 4 made, 1 failed; 140 frames" in first.stdout
    assert "1 worker died" in first.stdout
    assert "in/broken.mp4" in first.stderr and first.stderr.count("failed: ") == 1
    assert names(folder / "out") == [".streamgan", "0.mp4", "1.mp4", "2.mp4", "3.mp4"]
    made = {path.name: path.stat().st_mtime_ns for path in folder.glob("out/*.mp4")}
    streamgan(folder, "run", "in/3.mp4", "-p", "dies.yaml", "-o", "single.mp4")
    assert (folder / "out/3.mp4").read_bytes() == (folder / "single.mp4").read_bytes()
    again = streamgan(folder, *arguments, address=cluster, code=1)
    assert "5 films: 4 skipped, 1 failed" in again.stdout
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("out/*.mp4")} == made


def test_a_long_film_is_that_of_one_machine_though_a_worker_is_killed(cluster: str, folder: Path) -> None:
    make_clip(folder / "film.mp4", frames=120, audio=True)
    done = streamgan(folder, "batch", "film.mp4", "-p", "dies.yaml", "-o", "parts.mp4", address=cluster)
    assert "1 worker died" in done.stdout and "120 frames" in done.stdout
    assert len(set(workers(folder))) > 1
    streamgan(folder, "run", "film.mp4", "-p", "dies.yaml", "-o", "single.mp4")
    assert (folder / "parts.mp4").read_bytes() == (folder / "single.mp4").read_bytes()
    assert not [name for name in names(folder) if name.endswith(".parts")]
    again = streamgan(folder, "batch", "film.mp4", "-p", "dies.yaml", "-o", "parts.mp4", address=cluster)
    assert "parts.mp4: skipped" in again.stdout


def test_a_film_fails_as_a_whole_and_the_others_go_on(cluster: str, folder: Path) -> None:
    make_clip(folder / "good.mp4", frames=60)
    make_clip(folder / "wide.mp4", frames=60, size=(80, 48))
    (folder / "films.txt").write_text("good.mp4\nwide.mp4\n")
    done = streamgan(folder, "batch", "films.txt", "-p", "fails.yaml", "-o", "out/", "--split", address=cluster, code=1)
    assert "2 films: 1 made, 1 failed; 60 frames" in done.stdout
    assert done.stderr.count("failed: ") == 1 and "it is too wide" in done.stderr
    assert [path.name for path in folder.glob("out/*.mp4")] == ["good.mp4"]


def test_what_has_memory_is_cut_where_shots_are(cluster: str, folder: Path) -> None:
    write_shots(folder / "film.mkv", lengths=(13, 21, 6, 17, 12, 30))
    done = streamgan(folder, "batch", "film.mkv", "-p", "remembers.yaml", "-o", "parts.mp4", address=cluster)
    assert "99 frames" in done.stdout
    assert len(workers(folder)) > 2  # each part begins anew
    streamgan(folder, "run", "film.mkv", "-p", "remembers.yaml", "-o", "single.mp4")
    assert (folder / "parts.mp4").read_bytes() == (folder / "single.mp4").read_bytes()


def test_an_interruption_leaves_no_process_and_what_is_whole(cluster: str, folder: Path) -> None:
    make_clip(folder / "film.mp4", frames=120)
    line = command(folder, "batch", "film.mp4", "-p", "slow.yaml", "-o", "out.mp4", "--no-split", address=cluster)
    with subprocess.Popen(line, cwd=folder, stdout=PIPE, stderr=PIPE, text=True, env=SURROUNDINGS) as process:
        wait_for(lambda: (folder / ".out.mp4.parts/000001").exists())
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and said.splitlines()[-1] == "streamgan: interrupted"
    (worker,) = workers(folder)
    wait_for(lambda: not is_alive(worker))
    assert not (folder / "out.mp4").exists()
    assert "whole.mp4" not in names(folder / ".out.mp4.parts")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["-p", "nothing.yaml", "--address", "127.0.0.1:9"], "nothing.yaml"),
        (["-p", "dies.yaml", "--set", "colour=red", "--address", "127.0.0.1:9"], "colour"),
        (["-p", "dies.yaml", "--address", "127.0.0.1:9"], "Ray: the cluster at 127.0.0.1:9 cannot be reached"),
        (["-p", "dies.yaml", "--address", "nowhere"], "HOST:PORT"),
        (["-p", "dies.yaml", "-o", "-"], "belong to no worker"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(arguments: list[str], said: str, folder: Path) -> None:
    make_clip(folder / "film.mp4", frames=2)
    line = command(folder, "batch", "film.mp4", *arguments)
    done = subprocess.run(line, capture_output=True, text=True, cwd=folder, env=SURROUNDINGS, timeout=60)
    assert done.returncode in (1, 2) and said in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_no_room_for_a_worker_is_said(cluster: str, folder: Path) -> None:
    make_clip(folder / "film.mp4", frames=2)
    done = streamgan(folder, "batch", "film.mp4", "-p", "dies.yaml", "--cpus", "3", address=cluster, code=2)
    assert "no worker fits: each takes 3 cores and 0 GPUs, the machines have 2 cores" in done.stderr


def workers(folder: Path) -> list[int]:
    """The processes that have begun to translate a film or a part, in order."""
    return [int(process) for process in (folder / "workers").read_text().split()]


def write_shots(path: Path, lengths: Sequence[int]) -> None:
    """A film of shots, each a still of its own, with so many frames."""
    random = np.random.default_rng(1)
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for length in lengths:
            still = np.kron(random.integers(0, 256, (6, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
            for _ in range(length):
                output.mux(video.encode(av.VideoFrame.from_ndarray(still, format="rgb24")))
        output.mux(video.encode(None))


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Waits until something holds; fails if it takes too long."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    """Whether a process runs; what has ended and waits to be collected does not."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
