"""Kills: a suite that dies by SIGKILL at random moments ends as if nothing had happened.

    python tests/helpers/kills.py --kills 50 [--seed 0] [--folder DIR]    # nine minutes on one core

A tiny suite runs twice through the command line, each time in a place of its own (workspace and
image cache): once undisturbed; once with the whole process group killed again and again, at moments
that a seeded generator draws, and started anew by the same command. EARLY of the kills fall before
a process has said a word (imports, reading the suite), the others anywhere in what is left to do.
After every kill, whatever was finished must be as it was. In the end both places must hold the same
files with the same contents, but for FREE, and print the same. tests/system/test_kills.py is a
short form.
"""

import argparse
import json
import os
import random
import reprlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

from ssl_bench.errors import DataError
from ssl_bench.files import file_digest
from ssl_bench.records.workspace import read_records
from ssl_bench.tables.forms import markdown
from ssl_bench.tables.table import Table

RUN = ("run", "../suite.toml", "--workspace", "runs", "--workers", "1", "--checkpoint-every", "10")
EARLY = 0.2  # share of the kills
STUCK = 600  # seconds after which a process that should end is killed
# Of a record and of a line of log.jsonl: when, how fast, from which checkout, and from which step.
FREE = {
    "provenance.finished",
    "provenance.seconds",
    "provenance.peak_memory_mb",
    "provenance.git_commit",
    "provenance.git_dirty",
    "details.training.images_per_second",
    "details.training.data_wait",
    "details.training.resumed_at",
    "details.selection.images_per_second",
    "details.selection.data_wait",
    "details.pass.seconds",
    "images_per_second",
    "data_wait",
}

SUITE = """
name = "kills"
data = "scenes:train={images},test=100"
seeds = {seeds}

[encoder]
image_size = 64
width = 0.1
init = "fan-in"

[[pretrain]]
method = "random"

[[pretrain]]
method = "context-encoder"
steps = {steps}
batch_size = 8
lr = 1e-3

[[evaluate]]
evaluation = "linear-probe"
layers = ["conv3", "conv5"]
strengths = 4

[[evaluate]]
evaluation = "knn"
layers = ["conv5"]
k = [1, 5]

[[evaluate]]
evaluation = "finetune.linear-head"
layers = ["pool5"]
labels = 5
steps = {steps}
batch_size = 8
"""
MORE = """
[[pretrain]]
method = "kmeans-init"
images = 40
patches = 2000

[[pretrain]]
method = "autoencoder"
steps = 400  # so many that only every other is logged
batch_size = 8
lr = 1e-3

[[evaluate]]
evaluation = "linear-probe.zhang16"
layers = ["conv3", "conv5"]
epochs = 2
batch_size = 8
"""
LONG = SUITE.format(images=400, seeds=[0, 1], steps=100) + MORE
SHORT = SUITE.format(images=60, seeds=[0], steps=25)


@dataclass(frozen=True)
class Place:
    """A folder with a workspace and an image cache; the suite's file lies beside it."""

    folder: Path

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def said(self) -> str:
        """What the last process said of its work."""
        return (self.folder / "said").read_text(encoding="utf-8", errors="replace")

    @contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """`bench WORDS` in a process group of its own, killed in the end unless it is through."""
        command = [sys.executable, "-m", "ssl_bench", *words]
        threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # unless told otherwise
        environment = {**threads, **os.environ, "SSL_BENCH_CACHE": str(self.cache)}
        printed, said = self.folder / f"{words[0]}.txt", self.folder / "said"
        with open(printed, "wb") as out, open(said, "wb") as err:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=out, stderr=err,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def finish(self, *words: str) -> list[str]:
        """Let `bench WORDS` come to its end: a fault unless it succeeds."""
        with self.running(*words) as process, suppress(subprocess.TimeoutExpired):
            process.wait(STUCK)
        code = process.returncode
        return [f"bench {words[0]} ended with {code}: {self.said[-300:]}"] if code else []

    @property
    def works(self) -> bool:
        """Whether the last process has begun with the suite's runs."""
        return any(line.startswith("[") for line in self.said.splitlines())


# ---- the two courses


@dataclass(frozen=True)
class Course:
    """The undisturbed run in seconds: to its first line, and from there on."""

    startup: float
    work: float
    finished: Mapping[str, float]  # the records, and when they were written

    def left(self, runs: Path) -> float:
        """Seconds of work after the last of the records that are there."""
        done = [at for name, at in self.finished.items() if (runs / name).exists()]
        return self.work - max(done, default=0)


def undisturbed(place: Place) -> Course:
    """Run the suite once. Raises RuntimeError if it fails."""
    began = time.time()
    with place.running(*RUN) as process:
        await_work(process, place)
        first = time.time()
        if process.wait(STUCK):
            raise RuntimeError(place.said)
    work = time.time() - first
    records = place.runs.glob("*/*/record.json")
    finished = {str(p.relative_to(place.runs)): p.stat().st_mtime - first for p in records}
    return Course(first - began, work, finished)


def await_work(process: subprocess.Popen[bytes], place: Place) -> None:
    """Return when the suite's first run is begun, or the process has ended."""
    while process.poll() is None and not place.works:
        time.sleep(0.01)


@dataclass(frozen=True)
class Kill:
    """Where a kill fell: what the process was at, its step (0: none), files half written."""

    seconds: float
    phase: str
    step: int
    writing: tuple[str, ...]
    records: int

    def __str__(self) -> str:
        step = f", step {self.step}" if self.step else ""
        writing = f", writing {', '.join(self.writing)}" if self.writing else ""
        return f"after {self.seconds:5.2f} s: {self.phase}{step}{writing}; {self.records} records"


@dataclass
class Story:
    """What came of the disturbed run. `continued`: processes that found a checkpoint."""

    kills: list[Kill] = field(default_factory=list)
    processes: int = 0
    continued: int = 0
    faults: list[str] = field(default_factory=list)


def disturbed(
    place: Place, course: Course, kills: int, draw: random.Random, tell: Callable[[str], object]
) -> Story:
    """Kill the suite as often as asked, looking at what is left each time, then let it finish."""
    story, kept = Story(), dict[str, str]()
    while len(story.kills) < kills and not story.faults:
        struck = strike(place, course, kills - len(story.kills), draw, story)
        kept = look(place, kept, story)
        if struck:
            story.kills.append(struck)
            tell(f"kill {len(story.kills)} {struck}")
    story.faults += place.finish(*RUN)
    look(place, kept, story)
    return story


def look(place: Place, kept: Mapping[str, str], story: Story) -> dict[str, str]:
    """Count a process that has ended, and note what is not as it was; returns what is finished."""
    story.processes += 1
    story.continued += "continuing at step" in place.said
    now = finished(place)
    story.faults += [*changed(kept, now), *torn(place)]
    return now


def strike(
    place: Place, course: Course, left: int, draw: random.Random, story: Story
) -> Kill | None:
    """One process and its end by a kill, one of `left`; None if it was through before."""
    early, share = draw.random() < EARLY, draw.random()
    began = time.time()
    with place.running(*RUN) as process, suppress(subprocess.TimeoutExpired):
        delay = share * course.startup
        if not early:
            await_work(process, place)
            delay = share * 2 * course.left(place.runs) / (left + 1)
        process.wait(delay)
    if process.returncode == -signal.SIGKILL:
        return fallen(place, began)
    if process.returncode:
        story.faults.append(f"bench run ended with {process.returncode}: {place.said[-300:]}")
    return None


def fallen(place: Place, began: float) -> Kill:
    """Where the process that began then was killed, by what it said and left behind."""
    phase, step = whereabouts(place, began)
    scratch = fresh(place.runs, "**/.*.writing", began)
    writing = tuple(path.name[1:].removesuffix(".writing") for path in scratch)
    records = len(list(place.runs.glob("*/*/record.json")))
    return Kill(time.time() - began, phase, step, writing, records)


def whereabouts(place: Place, began: float) -> tuple[str, int]:
    """The phase, and the last step that was logged."""
    if not place.works:
        return "starting", 0
    if fresh(place.cache, ".*.decoding", began):
        return "decoding images", 0
    begun = [lock.parent for lock in fresh(place.runs, "*/*/.lock", began)]
    undone = [folder for folder in begun if not (folder / "record.json").exists()]
    if not undone:
        return "between runs", 0
    logs = [log for folder in undone for log in fresh(folder, "**/log.jsonl", began)]
    steps = last_step(max(logs, key=lambda log: log.stat().st_mtime)) if logs else 0
    if undone[0].parent.name == "pretrain":
        return "pretraining", steps
    return "an evaluation's training" if logs else "frozen features", steps


def fresh(folder: Path, pattern: str, since: float) -> list[Path]:
    """What was written since then."""
    return [path for path in folder.glob(pattern) if path.stat().st_mtime >= since]


def last_step(log: Path) -> int:
    lines = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return json.loads(lines[-1])["step"] if lines else 0


# ---- after every kill


def finished(place: Place) -> dict[str, str]:
    """Digests of all files of finished runs and of decoded image sets, but for checkpoints."""
    marks = [*place.runs.glob("*/*/record.json"), *place.cache.glob("[!.]*/index.json")]
    files = [path for mark in marks for path in mark.parent.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(place.folder)): file_digest(path)
        for path in files
        if "checkpoint.pt" not in path.name
    }


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What was finished and is not as it was."""
    found = {name: "changed" if name in now else "lost" for name in before}
    return [f"{name} is {what}" for name, what in found.items() if before[name] != now.get(name)]


def torn(place: Place) -> list[str]:
    """The first record that cannot be read, and those of one key."""
    try:
        counts = Counter(record.key for record in read_records(place.runs))
    except DataError as error:
        return [str(error)]
    return [f"run {key[:12]} is there {n} times" for key, n in counts.items() if n > 1]


# ---- in the end


def differences(whole: Place, killed: Place) -> list[str]:
    """All that is not the same in two places: a line each."""
    ours, theirs = contents(whole), contents(killed)
    found = [f"{name} is lost" for name in sorted(ours.keys() - theirs.keys())]
    found += [f"{name} is too much" for name in sorted(theirs.keys() - ours.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        found += [f"{name}: {part}" for part in unlike(ours[name], theirs[name])]
    found += torn(killed)
    if not torn(killed) and printed(whole) != printed(killed):
        found.append("the printed tables are not the same")
    return found


def printed(place: Place) -> list[str]:
    """What `bench run` printed in the end, and what `bench table` would."""
    records = read_records(place.runs, "evaluation")
    table = markdown(Table.of(records, place.runs))
    return [(place.folder / "run.txt").read_text(encoding="utf-8"), table]


def contents(place: Place) -> dict[str, Path]:
    """Every file and folder of workspace and cache."""
    paths = (path for part in (place.runs, place.cache) for path in part.rglob("*"))
    return {str(path.relative_to(place.folder)): path for path in paths}


def unlike(ours: Path, theirs: Path) -> Iterator[str]:
    """What two files differ in that is not FREE."""
    if (ours.is_dir() and theirs.is_dir()) or file_digest(ours) == file_digest(theirs):
        return
    one, other = parts(ours), parts(theirs)
    for name in sorted(one.keys() | other.keys()):
        if name not in FREE and one.get(name) != other.get(name):
            yield f"{name} was {reprlib.repr(one.get(name))}, is {reprlib.repr(other.get(name))}"


def parts(path: Path) -> dict[str, Any]:
    """A file in parts that can be compared: numbers, lines or arrays; else its bytes."""
    try:
        if path.suffix == ".json":
            return flat(json.loads(path.read_text()))
        if path.suffix == ".jsonl":
            lines = [flat(json.loads(line)) for line in path.read_text().splitlines()]
            kept = [{k: v for k, v in line.items() if k not in FREE} for line in lines]
            return {f"line {n}": line for n, line in enumerate(kept, 1)}
        if path.suffix == ".safetensors":
            with safe_open(path, framework="np") as file:
                return {**(file.metadata() or {}), **plain(load_file(path))}
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                return plain(arrays)
    except Exception as error:  # whatever is wrong with it
        return {"content": error}
    return {"content": path.read_bytes()}


def plain(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Arrays as what they are equal in."""
    return {name: (str(rows.dtype), rows.shape, rows.tobytes()) for name, rows in arrays.items()}


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested names with dots between them."""
    found: dict[str, Any] = {}
    for name, each in value.items():
        found |= flat(each, f"{prefix}{name}.") if isinstance(each, dict) else {prefix + name: each}
    return found


# ---- all of it


def experiment(
    root: Path, suite: str, kills: int, seed: int, tell: Callable[[str], object] = print
) -> tuple[Story, list[str]]:
    """The story of the kills, and all that is wrong; places `whole` and `killed` are left."""
    (root / "suite.toml").write_text(suite)
    whole, killed = Place(root / "whole"), Place(root / "killed")
    for place in (whole, killed):
        place.folder.mkdir()
    course = undisturbed(whole)
    tell(f"undisturbed: {course.startup:.1f} s to start, {course.work:.1f} s of work")
    began = time.monotonic()
    story = disturbed(killed, course, kills, random.Random(seed), tell)
    tell(f"disturbed: {time.monotonic() - began:.1f} s in {story.processes} processes")
    wrong = [*story.faults, *differences(whole, killed)]
    return story, wrong + killed.finish("verify", "runs")


def figures(story: Story, killed: Place) -> Iterator[str]:
    """Where the kills fell, and how much was compared."""
    for phase, count in Counter(kill.phase for kill in story.kills).most_common():
        steps = sorted(kill.step for kill in story.kills if kill.phase == phase and kill.step)
        yield f"{count:4} {phase}" + (f": steps {', '.join(map(str, steps))}" if steps else "")
    halves = Counter(name for kill in story.kills for name in kill.writing)
    written = ", ".join(f"{n} {name}" for name, n in halves.items())
    yield f"of these while a file was written: {written or 'none'}"
    yield f"{story.continued} processes continued from a checkpoint"
    kinds = Counter(path.suffix for path in contents(killed).values() if path.is_file())
    named = {"records": len(read_records(killed.runs)), "weights": kinds[".safetensors"]}
    named |= {"predictions": kinds[".npz"], "logs": kinds[".jsonl"], "image sets": kinds[".bin"]}
    yield "compared: " + ", ".join(f"{count} {name}" for name, count in named.items())


def main() -> int:
    parser = argparse.ArgumentParser(description="kill a suite at random moments")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", type=Path, help="to work in and keep; must not be there yet")
    asked = parser.parse_args()
    root = asked.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    if asked.folder:
        root.mkdir(parents=True)
    story, wrong = experiment(root, LONG, asked.kills, asked.seed, lambda t: print(t, flush=True))
    print(f"{len(story.kills)} kills")
    print("\n".join([*figures(story, Place(root / "killed")), *(wrong or ["equal"])]))
    if wrong:
        print(f"both places are kept in {root}")
    elif not asked.folder:
        shutil.rmtree(root)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
