"""Commands in processes of their own, what disturbs them, and what is compared in the end.

The processes are forked from one that has imported everything (multiprocessing's fork server), so
that each costs a tenth of a second: each runs the command line as `bench` does, and can be killed.
"""

import ctypes
import itertools
import json
import multiprocessing
import os
import pkgutil
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from importlib.metadata import entry_points
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import Result
from helpers.refusals import SCENES, TOY, half_written, only
from ssl_bench.records.workspace import read_records

SUITE = """
name = "toy"
data = "scenes:train=60,test=20"
[encoder]
image_size = 64
width = 0.1
[[pretrain]]
method = "autoencoder"
steps = 4
batch_size = 4
[[evaluate]]
evaluation = "knn"
layers = ["conv4", "pool5"]
k = [1, 3]
"""
VISSL = """
[[evaluate]]
evaluation = "knn.vissl"
layers = ["pool5"]
k = [1, 3]
"""
# Shares the encoders and half of the numbers with the suite above.
OTHER = SUITE.replace('"conv4"', '"conv5"') + VISSL
TRAINING = (
    *("pretrain", "autoencoder", *TOY, *SCENES, "--steps", "6", "--batch-size", "4"),
    *("--checkpoint-every", "2"),
)
STARTING = ("pretrain", "random", *TOY, *SCENES)
KNN = ("knn", "--k", "1,3", "--workers", "0", *SCENES)
STUCK = 60  # seconds after which a process is taken to hang
Hook = Callable[[], object]


# ---- processes
CONTEXT = multiprocessing.get_context("forkserver")
REGISTERED = [
    entry for kind in ("eval", "pretext") for entry in entry_points(group=f"ssl_bench.{kind}")
]
PRELOADED = [
    *(
        "pytest",
        "ssl_bench.cli",
        "ssl_bench.evaluation.suite_file",
        "ssl_bench.evaluation.evaluate",
        "ssl_bench.tables.report",
    ),
    *("ssl_bench.trust.sharing", "ssl_bench.records.dataframe", "ssl_bench.pictures.plots"),
    *sorted({entry.module for entry in REGISTERED}),
]


def command_line(
    words: Sequence[str], outputs: Sequence[Connection], hooks: Sequence[Hook]
) -> None:
    """What a process does: the command line, after what `hooks` do to the process."""
    from ssl_bench.cli.main import main

    multiprocessing.set_start_method("fork", force=True)  # as in a process of its own
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where pytest ignores it
    for number, output in enumerate(outputs, start=1):
        os.dup2(output.fileno(), number)
    for hook in hooks:
        hook()
    sys.argv = ["bench", *words]
    main()


class Running:
    """A `bench` command in a process of its own."""

    def __init__(self, words: Sequence[object], hooks: Sequence[Hook]) -> None:
        pipes = [CONTEXT.Pipe(duplex=False) for _ in ("stdout", "stderr")]
        self.readers = [reader for reader, _ in pipes]
        writers = [writer for _, writer in pipes]
        self.process = CONTEXT.Process(
            target=command_line, args=(list(map(str, words)), writers, hooks)
        )
        self.process.start()
        for writer in writers:
            writer.close()
        self.flag, self.started = Path(), time.monotonic()

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    @property
    def waiting(self) -> bool:
        """For the lock of a file; where the system does not say so, any process of two seconds."""
        locks = Path("/proc/locks")
        if not locks.exists():
            return time.monotonic() - self.started > 2
        lines = [line.split() for line in locks.read_text().splitlines() if "->" in line]
        return str(self.process.pid) in (line[5] for line in lines)

    def go_on(self) -> None:
        """After a stop at a function."""
        self.flag.unlink()

    def send(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL: nothing of it runs any more."""
        self.process.kill()
        self.process.join()

    def result(self, seconds: float = STUCK) -> Result:
        """What it answered; a failure where it hangs."""
        self.process.join(seconds)
        code = self.process.exitcode
        self.kill()
        said = [_read(reader) for reader in self.readers]
        assert code is not None, f"still at work after {seconds} s: {said}"
        return Result(code, *said)


def _read(pipe: Connection) -> str:
    """All that is in a pipe now."""
    os.set_blocking(pipe.fileno(), False)
    content = b""
    try:
        while part := os.read(pipe.fileno(), 1 << 16):
            content += part
    except BlockingIOError:  # a process of the process holds the other end
        pass
    return content.decode()


def ask(*words: object, hooks: Sequence[Hook] = (), seconds: float = STUCK) -> Result:
    """One command, to its end."""
    return Running(words, hooks).result(seconds)


def done(*words: object, hooks: Sequence[Hook] = ()) -> Result:
    """One command that succeeds."""
    result = ask(*words, hooks=hooks)
    assert result.code == 0, result
    return result


def until(happened: Callable[[], object], seconds: float = STUCK) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)


def all_done(running: Sequence[Running]) -> list[Result]:
    """What each answered, when all are through and none has failed."""
    answers = [each.result() for each in running]
    assert {answer.code for answer in answers} == {0}, answers
    return answers


def waits(running: Running) -> None:
    """Until it waits for a lock, which it must."""
    until(lambda: running.waiting or not running.alive)
    assert running.alive, running.result()


# ---- what hooks do, in the process
def stop_at(place: str, flag: Path) -> None:
    """The first call of a function says so by a file, and goes on when that is gone."""
    original, calls = pkgutil.resolve_name(place), itertools.count()

    def stopped(*args: Any, **more: Any) -> Any:
        if next(calls) == 0:
            flag.touch()
            while flag.exists():
                time.sleep(0.01)
        return original(*args, **more)

    pytest.MonkeyPatch().setattr(place, stopped)


def meet(folder: Path, count: int) -> None:
    """Begin when all of them are there."""
    folder.mkdir(exist_ok=True)
    (folder / str(os.getpid())).touch()
    until(lambda: len(list(folder.iterdir())) >= count)


def use_cache(folder: Path) -> None:
    os.environ["SSL_BENCH_CACHE"] = str(folder)


def limit_files(size: int) -> None:
    """No file can grow beyond `size` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def slow_disk() -> None:
    """Time enough for another process to come between a write and its end."""
    flush = os.fsync

    def flush_slowly(number: int) -> None:
        time.sleep(0.2)
        flush(number)

    pytest.MonkeyPatch().setattr("os.fsync", flush_slowly)


def without_privileges() -> None:
    """Permissions bind root, too, once it has given up its capabilities (Linux)."""
    if os.geteuid() == 0:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
        assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0


def print_to(path: str) -> None:
    os.dup2(os.open(path, os.O_WRONLY), 1)


def clock(days: float, step: float = 0) -> None:
    """A wall clock that is off by `days`, and by `step` more whenever someone looks at it."""
    looks = itertools.count()
    real = time.time

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(days=days + step * next(looks))

    patch = pytest.MonkeyPatch()
    patch.setattr("ssl_bench.records.provenance.datetime", Clock)
    patch.setattr("time.time", lambda: real() + 86400 * (days + step * next(looks)))


# ---- what is compared
Results = Mapping[str, tuple[Mapping[str, float], Mapping[str, str]]]


def results(workspace: Path) -> Results:
    """Metrics and files' digests of every run: bit for bit what it is about."""
    records = read_records(workspace)
    found = {record.key: (record.metrics, record.files) for record in records}
    assert len(found) == len(records), "a run is there twice"
    return found


def steps_logged(workspace: Path, method: str = "autoencoder") -> list[int]:
    path = only(workspace, f"pretrain/{method}-*/log.jsonl")
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def checked(workspace: Path, expected: Results) -> None:
    """The same runs as without a disturbance, and nothing else is left."""
    assert results(workspace) == expected
    assert half_written(workspace) == []
    assert done("verify", workspace).out == ""


PLACES = [
    "ssl_bench.data.store.squares._index",
    "ssl_bench.training.loop._Run.save",
    "ssl_bench.training.pretrain.save_encoder",
    "ssl_bench.evaluation.evaluate.write_predictions",
    "pathlib.Path.replace",
]


# ---- full disks
@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own in memory; the test is skipped where that is not permitted."""
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() or not mount:
        pytest.skip("only root mounts a file system")
    words = [mount, "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    made = subprocess.run(words, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
