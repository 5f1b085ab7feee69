"""Several processes at once, full disks, read-only places, clocks that jump: nothing is lost.

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
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from importlib.metadata import entry_points
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import ssl_bench
from helpers.bench import Result
from helpers.refusals import SCENES, TOY, contents, fails, half_written, only
from ssl_bench.records import find_run, read_records
from ssl_bench.reference import newest_of_each
from ssl_bench.tables import run_lines

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
    *("pytest", "ssl_bench.cli", "ssl_bench.suite", "ssl_bench.evaluate", "ssl_bench.report"),
    *("ssl_bench.sharing", "ssl_bench.frames", "ssl_bench.figures"),
    *sorted({entry.module for entry in REGISTERED}),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Every process adds up in the same order, and none of them waits by turning."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("OMP_WAIT_POLICY", "PASSIVE")
        CONTEXT.set_forkserver_preload(PRELOADED)
        yield


def command_line(
    words: Sequence[str], outputs: Sequence[Connection], hooks: Sequence[Hook]
) -> None:
    """What a process does: the command line, after what `hooks` do to the process."""
    from ssl_bench.cli import main

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


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """`start("table", at="ssl_bench.tables.Table.of")`: stopped where it first gets there."""
    started: list[Running] = []

    def begin(*words: object, hooks: Sequence[Hook] = (), at: str | None = None) -> Running:
        flag = tmp_path / f"stopped-{len(started)}"
        stop = [partial(stop_at, at, flag)] if at else []
        started.append(Running(words, [*hooks, *stop]))
        started[-1].flag = flag
        if at:
            until(lambda: flag.exists() or not started[-1].alive)
            assert flag.exists(), started[-1].result()
        return started[-1]

    yield begin
    for each in started:
        each.kill()


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
    patch.setattr("ssl_bench.records.datetime", Clock)
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


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suites") / "toy.toml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="module")
def other(suite: Path) -> Path:
    path = suite.with_name("other.toml")
    path.write_text(OTHER)
    return path


@pytest.fixture(scope="module")
def whole(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite's workspace, undisturbed; tests leave it as it is."""
    workspace = tmp_path_factory.mktemp("whole") / "runs"
    done("run", suite, "--workers", "0", "--workspace", workspace)
    return workspace


@pytest.fixture(scope="module")
def printed(suite: Path, whole: Path) -> str:
    """The suite's table."""
    return done("run", suite, "--workers", "0", "--workspace", whole).out


@pytest.fixture(scope="module")
def exported(suite: Path, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "toy"
    done("export", suite, "--out", out, "--workers", "0", "--workspace", whole)
    return out


@pytest.fixture
def copy(whole: Path, workspace: Path) -> Path:
    """The finished workspace, to be spoilt."""
    shutil.copytree(whole, workspace)
    return workspace


@pytest.fixture
def run(suite: Path, workspace: Path) -> tuple[object, ...]:
    """The suite in a workspace of the test."""
    return ("run", suite, "--workers", "0", "--workspace", workspace, "--checkpoint-every", "2")


# ---- several processes at once


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_a_suite(start, run, workspace, whole, printed, tmp_path, count):
    """On an empty workspace and cache: each key is computed once, and all print the same."""
    (tmp_path / "meeting").mkdir()
    hooks = [partial(use_cache, tmp_path / "cache"), partial(meet, tmp_path / "meeting", count)]
    running = [start(*run, hooks=hooks) for _ in range(count)]
    answers = [each.result() for each in running]
    assert {(answer.code, answer.out) for answer in answers} == {(0, printed)}, answers
    said = "".join(answer.err for answer in answers)
    assert said.count("decoding") == 2  # train and test
    assert said.count("autoencoder seed 0: 4/4") == 1
    assert said.count("features of train") == 2  # of two encoders
    assert steps_logged(workspace) == [1, 2, 3, 4]
    checked(workspace, results(whole))


def test_reader_sees_whole_records_only(start, run, workspace, whole):
    """Whoever reads all the while finds more and more runs, each as it stays."""
    running = [start(*run) for _ in range(2)]
    seen: Results = {}
    while any(each.alive for each in running):
        now = results(workspace)
        assert now.items() >= seen.items()
        seen = now
        if any(record.kind == "evaluation" for record in read_records(workspace)):
            done("table", "--workspace", workspace)
    assert [each.result().code for each in running] == [0, 0]
    assert seen, "nothing was read while they ran"
    assert seen.items() <= results(whole).items()


def test_suites_share_runs(start, run, other, workspace, whole, tmp_path):
    (tmp_path / "meeting").mkdir()
    hooks = [partial(meet, tmp_path / "meeting", 2)]
    second = (run[0], other, *run[2:])
    running = [start(*run, hooks=hooks), start(*second, hooks=hooks)]
    answers = [each.result() for each in running]
    assert [answer.code for answer in answers] == [0, 0], answers
    assert "".join(answer.err for answer in answers).count("autoencoder seed 0: 4/4") == 1
    found = results(workspace)
    assert found.items() > results(whole).items()
    assert len(found) == len(results(whole)) + 2 * 3  # conv5, the probe and its control, twice
    assert done("verify", workspace).out == ""
    assert half_written(workspace) == []


def test_pretraining_twice(start, workspace, tmp_path):
    (tmp_path / "meeting").mkdir()
    words = (*TRAINING, "--workspace", workspace)
    running = [start(*words, hooks=[partial(meet, tmp_path / "meeting", 2)]) for _ in range(2)]
    first, second = [each.result() for each in running]
    assert (first.code, second.code) == (0, 0), (first, second)
    assert first.out == second.out  # the speed in it, too: there is one record
    assert (first.err + second.err).count("autoencoder seed 0: 6/6") == 1
    assert steps_logged(workspace) == list(range(1, 7))


PLACES = [
    "ssl_bench.data.store._index",
    "ssl_bench.train._Run.save",
    "ssl_bench.pretrain.save_encoder",
    "ssl_bench.evaluate.write_predictions",
    "pathlib.Path.replace",
]


@pytest.mark.parametrize("place", PLACES)
def test_one_is_killed_and_the_other_goes_on(
    start, run, workspace, whole, printed, tmp_path, place
):
    """The first holds the lock when it dies; the second has waited for it."""
    hooks = [partial(use_cache, tmp_path / "cache")]
    first, second = start(*run, hooks=hooks, at=place), start(*run, hooks=hooks)
    waits(second)
    first.kill()
    answer = second.result()
    assert (answer.code, answer.out) == (0, printed), answer
    assert half_written(tmp_path / "cache") == []
    checked(workspace, results(whole))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_waits_can_be_stopped(start, run, workspace, whole, number):
    first, second = start(*run, at="ssl_bench.records.Run.finish"), start(*run)
    waits(second)
    second.send(number)
    answer = second.result(10)
    assert answer.code == {signal.SIGINT: 130, signal.SIGTERM: -signal.SIGTERM}[number]
    assert "Traceback" not in answer.err
    first.go_on()
    assert first.result().code == 0
    checked(workspace, results(whole))


def test_the_folder_that_is_waited_for_disappears(start, workspace):
    """Someone follows the advice to remove a run's folder: who waits for it makes it anew."""
    words = (*TRAINING, "--workspace", workspace)
    first, second = start(*words, at="ssl_bench.records.Run.finish"), start(*words)
    waits(second)
    shutil.rmtree(only(workspace, "pretrain/*"))
    first.kill()
    answer = second.result()
    assert answer.code == 0, answer
    assert steps_logged(workspace) == list(range(1, 7))


def test_a_suite_that_asks_twice_does_not_wait_for_itself(suite, workspace, whole):
    path = suite.with_name("twice.toml")
    path.write_text(SUITE + SUITE[SUITE.index("[[evaluate]]") :])
    answer = ask("run", path, "--workers", "0", "--workspace", workspace, seconds=15)
    assert answer.code == 0, answer
    assert results(workspace) == results(whole)


@pytest.mark.parametrize(
    "words", ["table --out {out}", "report --out {out}.html", "run {suite} --workers 0 --out {out}"]
)
def test_two_write_to_one_place(start, suite, whole, tmp_path, words):
    """Both succeed, and what they wrote is whole."""
    line = (*words.format(out=tmp_path / "out", suite=suite).split(), "--workspace", whole)
    (tmp_path / "meeting").mkdir()
    hooks = [slow_disk, partial(meet, tmp_path / "meeting", 2)]
    running = [start(*line, hooks=hooks) for _ in range(2)]
    answers = [each.result() for each in running]
    assert [answer.code for answer in answers] == [0, 0], answers
    assert half_written(tmp_path) == []


def test_export_while_a_suite_runs(start, run, suite, workspace, whole, tmp_path):
    out = tmp_path / "out"
    words = ("export", suite, "--out", out, "--workers", "0", "--workspace", workspace)
    running = [start(*run), start(*words)]
    answers = [each.result() for each in running]
    assert [answer.code for answer in answers] == [0, 0], answers
    assert done("verify", out).out == ""
    checked(workspace, results(whole))


@pytest.mark.parametrize("place", ["ssl_bench.pretrain.save_encoder", "ssl_bench.train._Run.save"])
def test_import_while_a_suite_runs(start, run, workspace, exported, whole, printed, place):
    """The suite goes on with what it finds; the import may wait for what is at work."""
    running = start(*run, at=place)
    importing = start("import", exported, "--workspace", workspace)
    until(lambda: importing.waiting or not importing.alive)
    running.go_on()
    answer = running.result()
    assert (answer.code, answer.out) == (0, printed), answer
    assert importing.result().code == 0
    assert results(workspace) == results(whole)


def test_imported_runs_count_as_made(run, workspace, exported, printed):
    """Weights are not exported; the suite's numbers are all there."""
    done("import", exported, "--workspace", workspace)
    answer = ask(*run)
    assert (answer.code, answer.out) == (0, printed), answer


def test_what_is_made_again_apart_is_not_counted(start, copy):
    """`bench rerun` makes a run within the workspace: no reader counts it, also after a kill."""
    key = read_records(copy, "evaluation")[0].key
    before = ssl_bench.load_records(copy)
    words = ("rerun", key, "--workers", "0", "--workspace", copy)
    running = start(*words, at="ssl_bench.provenance._differences")
    running.kill()
    assert len(ssl_bench.load_records(copy)) == len(before)
    answer = ask("verify", copy)
    assert (answer.code, answer.out) == (0, ""), answer


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


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    with mounted(tmp_path / "disk", "4m") as folder:
        yield folder


def fill(disk: Path) -> Path:
    """Leave no room; returns the file that takes it."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


FULL = [
    *PLACES,
    "ssl_bench.data.store._write",
    "ssl_bench.features._Scratch.write",
    "ssl_bench.train._Run._log",
    "ssl_bench.pretrain._save_rest",
    "ssl_bench.records.Run.finish",
]


@pytest.mark.parametrize("place", FULL)
def test_the_disk_is_full(start, suite, disk, whole, printed, place):
    """One line names the path and the reason; with room, the same command ends as ever."""
    words = ("run", suite, "--workers", "0", "--workspace", disk / "runs")
    words += ("--checkpoint-every", "2", "--feature-memory", "0")
    hooks = [partial(use_cache, disk / "cache")]
    running = start(*words, hooks=hooks, at=place)
    before, ballast = contents(disk / "runs"), fill(disk)
    running.go_on()
    fails(running.result(), 1, ": cannot write", str(disk), "No space left on device")
    assert contents(disk / "runs").items() >= before.items()
    assert half_written(disk) == []
    assert results(disk / "runs").items() <= results(whole).items()
    ballast.unlink()
    answer = ask(*words, hooks=hooks)
    assert (answer.code, answer.out) == (0, printed), answer
    assert steps_logged(disk / "runs") == [1, 2, 3, 4]
    checked(disk / "runs", results(whole))


SHOWN = [
    ("table --out {out}", 300),
    ("report --out {out}", 1500),
    ("run {suite} --workers 0 --out {out}", 300),
    ("export {suite} --workers 0 --out {out}", 300),  # cuts the predictions
    ("export {suite} --workers 0 --out {out}", 1500),  # cuts the records
    ("figures filters --workers 0 --data scenes:train=60,test=20 --out {out}", 1000),
]


@pytest.mark.parametrize(("words", "room"), SHOWN)
def test_the_disk_of_what_is_shown_is_full(suite, whole, tmp_path, words, room):
    out, before = tmp_path / "out", contents(whole)
    line = (*words.format(out=out, suite=suite).split(), "--workspace", whole)
    fails(ask(*line, hooks=[partial(limit_files, room)]), 1, str(out), "File too large")
    assert half_written(tmp_path) == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and _torn(path)]
    assert contents(whole) == before
    done(*line)
    if words.startswith("export"):
        assert done("verify", out).out == ""


def _torn(path: Path) -> bool:
    """Whether a file is not what its suffix says."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
    except (OSError, ValueError):
        return True
    return False


def test_an_export_outlives_the_next_one(suite, whole, exported, tmp_path):
    """What was exported before stays until the new one is whole."""
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    before = contents(out)
    line = ("export", suite, "--workers", "0", "--workspace", whole, "--out", out)
    assert ask(*line, hooks=[partial(limit_files, 1500)]).code == 1
    assert contents(out) == before
    assert ask("verify", out).code == 0


@pytest.mark.parametrize("room", [300, 1500])
def test_the_disk_is_full_at_an_import(exported, workspace, room):
    """No torn run is left that readers stumble over and the next import passes by."""
    words = ("import", exported, "--workspace", workspace)
    fails(ask(*words, hooks=[partial(limit_files, room)]), 1, str(workspace), "File too large")
    assert not [path for path in workspace.rglob("*.json") if _torn(path)]
    done(*words)
    checked(workspace, results(exported))


def test_the_disk_is_full_at_a_preview(copy, suite):
    settings = ("--steps", "4", "--batch-size", "4", "--workspace", copy, "--preview")
    words = ("pretrain", "autoencoder", *TOY, *SCENES, *settings)
    path = only(copy, "pretrain/autoencoder-*") / "preview.png"
    fails(ask(*words, hooks=[partial(limit_files, 100)]), 1, str(path), "File too large")
    assert not path.exists()


def test_the_disk_is_full_when_a_log_is_continued(start, workspace):
    """What was logged before the checkpoint stays."""
    words = (*TRAINING, "--workspace", workspace)
    start(*words, at="ssl_bench.pretrain.save_encoder").kill()
    path = only(workspace, "pretrain/*/log.jsonl")
    fails(ask(*words, hooks=[partial(limit_files, 10)]), 1, str(path), "File too large")
    assert "continuing at step 4 of 6" in done(*words).err
    assert steps_logged(workspace) == list(range(1, 7))


def test_standard_output_is_full(whole):
    answer = ask("table", "--workspace", whole, hooks=[partial(print_to, "/dev/full")])
    fails(answer, 1, "No space left on device")


# ---- read-only places

READING = [
    "table", "runs", "show {key}", "compare autoencoder random", "run {suite} --workers 0",
    "knn --k 1,3 --layer pool5 --workers 0 --data scenes:train=60,test=20",
    "report --out {out}.html", "table --out {out}", "export {suite} --workers 0 --out {out}",
]  # fmt: skip
WRITING = [
    "pretrain random --image-size 64 --width 0.1 --seed 1 --workers 0 --data {data}",
    "knn --k 1 --layer pool5 --workers 0 --data {data}",
    "table --out {here}", "table --out {here}/tables", "report --out {here}/page.html",
    "export {suite} --workers 0 --out {here}/export", "rerun {key} --workers 0", "import {new}",
]  # fmt: skip
Locked = tuple[Path, list[Hook]]


@pytest.fixture(scope="module", params=["permissions", "mount"])
def locked(
    request: pytest.FixtureRequest, whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Locked]:
    """A finished workspace that nothing can be written to, and what makes it so."""
    folder = tmp_path_factory.mktemp("locked")
    if request.param == "mount":
        with mounted(folder / "disk", "4m") as disk:
            shutil.copytree(whole, disk / "runs")
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            yield disk / "runs", []
        return
    shutil.copytree(whole, folder / "runs")
    lock(folder / "runs")
    yield folder / "runs", [without_privileges]
    lock(folder / "runs", again=True)


def lock(folder: Path, again: bool = False) -> None:
    """Take the right to write from everybody, or give it back."""
    for path in (folder, *folder.rglob("*")):
        mode = 0o555 if path.is_dir() else 0o444
        path.chmod(mode | 0o200 if again else mode)


def line_of(words: str, suite: Path, workspace: Path, tmp_path: Path) -> list[str]:
    """The words of a command on that workspace."""
    places = {
        "suite": suite, "out": tmp_path / "out", "here": workspace, "new": tmp_path / "new",
        "key": read_records(workspace, "evaluation")[0].key, "data": SCENES[1],
    }  # fmt: skip
    return [*words.format(**places).split(), "--workspace", str(workspace)]


@pytest.mark.parametrize("words", READING)
def test_reading_needs_no_right_to_write(locked: Locked, whole, suite, tmp_path, words):
    workspace, hooks = locked
    answer = ask(*line_of(words, suite, workspace, tmp_path), hooks=hooks)
    assert answer.code == 0, answer
    assert answer.out == done(*line_of(words, suite, whole, tmp_path)).out


def test_verification_needs_no_right_to_write(locked: Locked):
    workspace, hooks = locked
    assert done("verify", workspace, hooks=hooks).out == ""
    assert len(ssl_bench.load_records(workspace)) == 6 * 3


@pytest.mark.parametrize("words", WRITING)
def test_writing_without_the_right_to(locked: Locked, suite, workspace, tmp_path, words):
    """One line says where and why."""
    place, hooks = locked
    if "{new}" in words:
        done(*STARTING, "--seed", "1", "--workspace", tmp_path / "new")
    before = contents(place)
    answer = ask(*line_of(words, suite, place, tmp_path), hooks=hooks)
    fails(answer, 1, str(place))
    assert any(reason in answer.err for reason in ("Permission denied", "Read-only file system"))
    assert contents(place) == before


def test_others_can_read_all_of_a_run(whole):
    """Whoever may read the record may read the weights: no file has a mode of its own."""
    modes = {path.name: path.stat().st_mode for path in whole.rglob("*") if path.is_file()}
    assert set(modes.values()) == {modes["record.json"]}, modes


@pytest.fixture
def cache(whole: Path, image_cache: Path, tmp_path: Path) -> Iterator[Path]:
    """The suite's decoded images, and no more can be added."""
    folder = tmp_path / "cache"
    shutil.copytree(image_cache, folder)
    lock(folder)
    yield folder
    lock(folder, again=True)


def test_decoded_images_are_read_from_a_read_only_cache(cache, workspace, run, printed):
    hooks = [partial(use_cache, cache), without_privileges]
    assert done(*run, hooks=hooks).out == printed


@pytest.mark.parametrize("more", [("--data", "scenes:train=61,test=20"), ("--feature-memory", "0")])
def test_nothing_can_be_added_to_a_read_only_cache(cache, copy, more):
    """Images that are not there, features that do not fit into memory."""
    line = (*KNN, "--layer", "conv5", "--encoder", "random", "--workspace", copy, *more)
    answer = ask(*line, hooks=[partial(use_cache, cache), without_privileges])
    fails(answer, 1, str(cache), "Permission denied")


@pytest.mark.parametrize("workers", [0, 1])
def test_decoded_images_that_cannot_be_read(cache, workspace, workers):
    """A cache of someone else's; the workers that gather images meet it first."""
    for path in cache.rglob("images.bin"):
        path.chmod(0)
    words = (*TRAINING, "--workers", workers, "--workspace", workspace)
    answer = ask(*words, hooks=[partial(use_cache, cache), without_privileges])
    fails(answer, 1, str(cache), "images.bin", "Permission denied")


# ---- workspaces that are no folder, are not there, or go away


@pytest.mark.parametrize("words", ["run {suite} --workers 0", "import {exported}"])
def test_a_file_in_place_of_the_workspace(suite, exported, tmp_path, words):
    file = tmp_path / "file"
    file.write_text("mine")
    line = words.format(suite=suite, exported=exported).split()
    fails(ask(*line, "--workspace", file), 1, str(file), "Not a directory")
    assert file.read_text() == "mine"


@pytest.mark.parametrize("kind", ["file", "nothing"])
@pytest.mark.parametrize(
    "words",
    ["table", "report", "show abc", "rerun abc", "compare a b", "figures filters --out {out}"],
)
def test_nothing_to_read(tmp_path, kind, words):
    place = tmp_path / kind
    if kind == "file":
        place.write_text("mine")
    line = (*words.format(out=tmp_path / "out").split(), "--workspace", place)
    fails(ask(*line), 2)
    assert place.exists() == (kind == "file")


GOING = [
    *("ssl_bench.train._Run._log", "ssl_bench.train._Run.save", "ssl_bench.pretrain.save_encoder"),
    *("ssl_bench.evaluate.write_predictions", "ssl_bench.records.Run.finish"),
]


@pytest.mark.parametrize("place", GOING)
def test_the_workspace_goes_away(start, run, workspace, whole, printed, place):
    running = start(*run, at=place)
    shutil.rmtree(workspace)
    running.go_on()
    fails(running.result(), 1, str(workspace), "No such file or directory")
    assert done(*run).out == printed
    checked(workspace, results(whole))


def test_the_cache_goes_away(start, run, workspace, whole, printed, tmp_path):
    cache = tmp_path / "cache"
    running = start(*run, hooks=[partial(use_cache, cache)], at="ssl_bench.evaluate.extract")
    shutil.rmtree(cache)
    running.go_on()
    fails(running.result(), 1, str(cache), "No such file or directory")
    assert len(results(workspace)) == 1  # the starting weights are finished
    assert done(*run, hooks=[partial(use_cache, cache)]).out == printed
    checked(workspace, results(whole))


# ---- clocks


@pytest.mark.parametrize(("days", "step"), [(36500, 0), (-10000, 0), (0, -1), (0, 400)])
def test_the_clock_is_of_no_account(run, workspace, whole, printed, days, step):
    """Wrong, or jumping by days while the suite runs: the same runs, table and durations."""
    assert done(*run, hooks=[partial(clock, days, step)]).out == printed
    checked(workspace, results(whole))
    for record in read_records(workspace):
        assert 0 <= record.provenance.seconds < STUCK
        if training := record.details.get("training"):
            assert training["images_per_second"] > 0
            assert 0 <= training["data_wait"] <= 1


def test_the_newest_run_is_the_one_that_says_so(workspace):
    """By the time in the record, whatever the clock was then: all commands agree on it."""
    for seed, days in enumerate((0, 400, -400)):
        hooks = [partial(clock, days)]
        done(*STARTING, "--seed", seed, "--workspace", workspace, hooks=hooks)
    records = read_records(workspace)
    assert [record.identity["config"]["seed"] for record in records] == [2, 0, 1]
    assert find_run(workspace, "random") == records[-1]
    assert newest_of_each(workspace) == [f"random@{records[-1].key[:12]}"]
    listed = done("runs", "--workspace", workspace).out.splitlines()[1:]
    assert [line.split("random@")[1][:12] for line in listed] == [r.key[:12] for r in records]


def test_a_tie_is_broken_alike_everywhere(workspace):
    """Runs of one moment have an order that does not depend on the file system."""
    for seed in range(6):
        done(*STARTING, "--seed", seed, "--workspace", workspace)
    for path in workspace.glob("*/*/record.json"):
        record = json.loads(path.read_text())
        record["provenance"]["finished"] = "2020-02-02T00:00:00Z"
        path.write_text(json.dumps(record))
    keys = [record.key[:12] for record in read_records(workspace)]
    assert keys == sorted(keys)
    assert find_run(workspace, "random").key[:12] == keys[-1]
    assert [line.split("random@")[1][:12] for line in run_lines(workspace)[1:]] == keys


@pytest.mark.parametrize("disturbance", ["the clock was set back", "another suite was first"])
def test_an_export_agrees_with_itself(other, suite, workspace, tmp_path, disturbance):
    """In which order a suite's runs were finished is no disagreement."""
    path, out = suite.with_name("turned.toml"), tmp_path / "out"
    place = ("--workers", "0", "--workspace", workspace)
    hooks = []
    if disturbance == "another suite was first":
        path.write_text(SUITE.replace("[[evaluate]]", f"{VISSL}[[evaluate]]"))
        done("run", suite, *place)
    else:
        path.write_text(SUITE + VISSL)
        hooks = [partial(clock, 0, -1)]
    done("export", path, "--out", out, *place, hooks=hooks)
    answer = ask("verify", out)
    assert (answer.code, answer.out) == (0, ""), answer
    done("import", out, "--workspace", tmp_path / "taken")


@pytest.mark.parametrize("when", [0, 2**33])
def test_a_lock_has_no_age(start, workspace, when):
    """A lock's file from 1970 or the future holds as long as its process lives, and no longer."""
    words = (*TRAINING, "--workspace", workspace)
    first = start(*words, at="ssl_bench.pretrain.save_encoder")
    for path in (only(workspace, "pretrain/*/.lock"), only(workspace, "pretrain/*/checkpoint.pt")):
        os.utime(path, (when, when))
    second = start(*words)
    waits(second)
    first.kill()
    answer = second.result()
    assert answer.code == 0, answer
    assert "continuing at step 4 of 6" in answer.err
    assert steps_logged(workspace) == list(range(1, 7))


def test_photographs_of_other_times_are_the_same(tiny_photos, workspace, tmp_path):
    """All times of a set jump, as after a restored backup: its run is answered from the record."""
    words = ("pretrain", "autoencoder", *TOY, "--steps", "2", "--batch-size", "4")
    words += ("--data", f"folder:{tiny_photos}", "--workspace", workspace)
    first = done(*words)
    for when in (0, 2**33):
        for path in tiny_photos.rglob("*"):
            os.utime(path, (when, when))
        again = done(*words)
        assert again.out == first.out
        assert "autoencoder seed 0" not in again.err
    photo = only(tiny_photos, "train/ant/0.jpg")
    photo.write_bytes((tiny_photos / "train/bee/0.jpg").read_bytes())
    os.utime(photo, (2**33, 2**33))
    assert "autoencoder seed 0: 2/2" in done(*words).err
    assert len(read_records(workspace)) == 2
