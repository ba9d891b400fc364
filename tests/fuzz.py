"""Runs the program on input that nobody would make on purpose, and says where it does anything but end well.

    python tests/fuzz.py --minutes 3            a new seed each time; --seed N repeats one
    python tests/fuzz.py --repeat FILE          one finding again, with all that the program prints

A case ends well with exit code 0, or with 1 or 2 and one line that says why, and without leaving anything half-made. A
traceback, an "unexpected" error, silence for 20 seconds or the end of the interpreter is a finding: it is kept as a
file with all that it needs. The cases run in one child that is started anew when it dies or falls silent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import itertools
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import click

PATIENCE = 20.0
"""Seconds after which a case hangs."""
MEMORY = 8 << 30
"""Bytes that the child may use; beyond, it is told that there is no memory, instead of the whole machine."""
CASES_OF_A_CHILD = 400
_LEFT = re.compile(r"\.partial-|^out")
_CHATTER = re.compile(
    r"streamgan: |note: |(\[?\d+/\d+\]? .*)?(would fail|failed): "
    r"|libpng |Corrupt JPEG|Premature end of J|Warning: unk|\[ ?(WARN|ERROR):"
)
"""Lines that may stand on the standard error: our own, and what libpng, libjpeg and OpenCV say of a picture."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a case."""

    code: int | None
    """The exit code; negative for the signal that ended the interpreter; None if it hung."""
    errors: str
    """What was printed on the standard error."""
    appeared: tuple[str, ...] = ()
    """Files that were not there before."""

    @property
    def fault(self) -> str | None:
        """What is wrong, in a line; None if it ended well."""
        told = [line for line in self.errors.splitlines() if line.strip()]
        if self.code is None:
            return f"hung for {PATIENCE:g} s: {_innermost(told)}"
        if self.code < 0:
            return f"the interpreter died of {signal.Signals(-self.code).name}: {_innermost(told)}"
        if self.code not in (0, 1, 2):
            return f"exit code {self.code}"
        unexpected = [line for line in told if "error: unexpected " in line or line.startswith("Traceback")]
        if unexpected:
            return unexpected[-1] if not told[-1].startswith("Traceback") else told[-1]
        if self.code and sum(line.startswith("streamgan: ") for line in told) != 1:
            return f"exit code {self.code} with {len(told)} lines, expected one: {told[:2]}"
        strange = [line for line in told if not _CHATTER.match(line)]
        if strange:
            return f"a library printed: {strange[0][:150]}"
        left = [name for name in self.appeared if _LEFT.search(name)] if self.code else []
        return f"left behind: {', '.join(sorted(left))}" if left else None


def _innermost(lines: Sequence[str]) -> str:
    """Where the dump of a dying or hanging interpreter says that it was."""
    places = [line.strip() for line in lines if line.lstrip().startswith("File ")]
    ours = [place for place in places if "streamgan" in place]
    return (ours or places or ["no place known"])[0]


class Child:
    """The process in which cases run, one after the other."""

    def __init__(self, folder: Path) -> None:
        """Starts it; `folder` is where the cases get theirs."""
        self._folder = folder
        self._numbers = itertools.count()
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def run(self, arguments: Sequence[str], files: dict[str, bytes], patience: float = PATIENCE) -> Outcome:
        """Runs the program in a folder with files."""
        number = next(self._numbers)
        if number % CASES_OF_A_CHILD == CASES_OF_A_CHILD - 1:
            self._end()
            self._start()
        folder = self._folder / str(number)
        _lay_out(folder, files)
        code = self._ask(json.dumps({"folder": str(folder), "arguments": list(arguments)}), patience)
        errors = (self._folder / "errors").read_text(encoding="utf-8", errors="replace")
        appeared = sorted(path.name for path in folder.rglob("*") if str(path.relative_to(folder)) not in files)
        shutil.rmtree(folder, ignore_errors=True)
        return Outcome(code, errors, tuple(name for name in appeared if name != "lock"))

    def _ask(self, line: str, patience: float) -> int | None:
        """The exit code of a case; of the child itself, negative, if it died; None if it hung."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], patience)
        answer = self._process.stdout.readline() if ready else b""
        if answer.strip():
            return int(answer)
        if not ready:
            self._process.send_signal(signal.SIGABRT)  # its fault handler says where it hangs
        code = self._process.wait()
        self._end()
        self._start()
        return code if ready else None

    def _start(self) -> None:
        """Starts the process."""
        command = [sys.executable, __file__, "--child", str(self._folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def _end(self) -> None:
        """Ends the process, if it runs."""
        self._process.kill()
        self._process.communicate()


def _lay_out(folder: Path, files: dict[str, bytes]) -> None:
    """Writes the files of a case, all with the same time."""
    from seeds import CHANGED

    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (CHANGED, CHANGED))


def serve(folder: Path) -> None:
    """The child: runs each case that the standard input names, and answers its exit code."""
    from streamgan.cli.program import execute

    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in questions:
        case = json.loads(line)
        os.chdir(case["folder"])
        with _redirected(folder / "output", 1), _redirected(folder / "errors", 2):
            faulthandler.enable(all_threads=True)
            code = execute(case["arguments"])
        os.chdir(folder)
        answers.write(b"%d\n" % code)
        answers.flush()


@contextlib.contextmanager
def _redirected(path: Path, number: int) -> Iterator[None]:
    """Lets a standard stream go to a file, also what libraries in C print."""
    stream = sys.stdout if number == 1 else sys.stderr
    kept, file = os.dup(number), os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, number)
    try:
        yield
    finally:
        stream.flush()
        os.dup2(kept, number)
        os.close(kept)
        os.close(file)


def fuzz(seed: int, kinds: Sequence[str], until: float, most: int, findings: Path) -> tuple[Counter[str], Counter[str]]:
    """Runs cases until a time or a number is reached; keeps the first of each kind of fault as a file.

    Args:
        seed: of all chance.
        kinds: of the cases, taken in turn.
        until: `time.monotonic` at which to stop.
        most: cases to run at most.
        findings: folder for the faulty cases.

    Returns:
        How many cases ended with each exit code, and how often each fault came.
    """
    from mutations import MAKERS
    from seeds import make

    ended, faults = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="streamgan-fuzz-") as name:
        made = Path(name, "seeds")
        made.mkdir()
        seeds = make(made)
        with Child(Path(name)) as child:
            for number in range(most):
                if time.monotonic() > until:
                    break
                kind = kinds[number % len(kinds)]
                case = MAKERS[kind](random.Random(f"{seed} {number}"), seeds)
                outcome = child.run(case.arguments, dict(case.files))
                ended[f"{kind} {outcome.code}"] += 1
                if outcome.fault is None:
                    continue
                signature = f"{kind}: {re.sub(r'0x[0-9a-f]+|[0-9]+', 'N', outcome.fault)}"[:200]
                faults[signature] += 1
                if faults[signature] == 1:
                    findings.mkdir(parents=True, exist_ok=True)
                    kept = findings / f"{kind}-{seed}-{number}.json"
                    kept.write_text(case.to_json())
                    click.echo(f"{kept}: {outcome.fault}\n    streamgan {' '.join(case.arguments)!r}")
    return ended, faults


def repeat(path: Path) -> Outcome:
    """Runs one finding again, and prints what the program does."""
    from mutations import Case

    case = Case.from_json(path.read_text())
    with tempfile.TemporaryDirectory(prefix="streamgan-fuzz-") as folder, Child(Path(folder)) as child:
        outcome = child.run(case.arguments, dict(case.files))
        errors = child.run(("--debug", *case.arguments), dict(case.files)).errors
    click.echo(f"streamgan {' '.join(case.arguments)!r}\n{errors}\nexit code {outcome.code}: {outcome.fault}")
    return outcome


@click.command()
@click.option("--minutes", type=float, default=3.0, show_default=True)
@click.option("--seed", type=int, default=None, help="The clock's by default.")
@click.option("--kind", "kinds", multiple=True, help="Only cases of this kind; may be repeated.")
@click.option("--cases", type=int, default=10**9, help="How many cases at most.")
@click.option("--findings", type=click.Path(path_type=Path), default=Path("fuzz-findings"), show_default=True)
@click.option("--repeat", "again", type=click.Path(path_type=Path), help="Run a finding again, and nothing else.")
@click.option("--child", type=click.Path(path_type=Path), hidden=True)
def main(
    minutes: float,
    seed: int | None,
    kinds: tuple[str, ...],
    cases: int,
    findings: Path,
    again: Path | None,
    child: Path | None,
) -> None:
    """Fuzz streamgan. Exit code 1 if there was a finding."""
    if child is not None:
        return serve(child)
    if again is not None:
        sys.exit(1 if repeat(again).fault else 0)
    from mutations import MAKERS

    chosen = int(time.time()) if seed is None else seed
    began = time.monotonic()
    ended, faults = fuzz(chosen, kinds or tuple(MAKERS), began + 60 * minutes, cases, findings)
    seconds = time.monotonic() - began
    click.echo(f"seed {chosen}: {ended.total()} cases in {seconds:.0f} s; {faults.total()} findings")
    for name, count in sorted(ended.items()):
        click.echo(f"  {name}: {count}")
    for name, count in faults.most_common():
        click.echo(f"  {count} × {name}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
