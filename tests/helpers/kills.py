"""Kills: a suite that dies by SIGKILL at random moments ends as if nothing had happened.

    PYTHONPATH=tests python -m helpers.kills --kills 50 [--seed 0]    # minutes on one core

A tiny suite runs twice through the command line, each time in a place of its own (workspace and
image cache): once undisturbed; once with the whole process group killed again and again, at moments
that a seeded generator draws, and started anew by the same command. After every kill, whatever was
finished must be as it was. In the end both places must hold the same files with the same contents,
but for FREE, and print the same. tests/system/disturbances/test_kills.py is a short form.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from helpers.disturbances import CONTEXT, PRELOADED, Running, ask, use_cache
from ssl_bench.errors import DataError
from ssl_bench.files import file_digest
from ssl_bench.records.workspace import read_records
from ssl_bench.tables.forms import markdown
from ssl_bench.tables.table import Table

STARTUP = 0.2  # seconds in which a process reads the suite and what is there
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
    "details.kept.seconds",
    "details.selection.images_per_second",
    "details.selection.data_wait",
    "details.pass.seconds",
    "images_per_second",
    "data_wait",
}

SUITE = """
name = "kills"
data = "scenes:train={images},test=20"
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
labels = 2
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
keep-at = [100, 101, 300]
batch_size = 8
lr = 1e-3

[[evaluate]]
evaluation = "linear-probe.zhang16"
layers = ["conv3", "conv5"]
epochs = 2
batch_size = 8
"""
LONG = SUITE.format(images=400, seeds=[0, 1], steps=100) + MORE
SHORT = SUITE.format(images=60, seeds=[0], steps=15)


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

    def start(self) -> Running:
        """`bench run` in a process group of its own."""
        words = ("run", self.folder.parent / "suite.toml", "--workspace", self.runs)
        more = ("--workers", "1", "--checkpoint-every", "5")
        return Running([*words, *more], [os.setsid, partial(use_cache, self.cache)])


@dataclass
class Story:
    """What came of the disturbed run. `continued`: processes that found a checkpoint."""

    kills: int = 0
    processes: int = 0
    continued: int = 0
    faults: list[str] = field(default_factory=list)


def disturbed(place: Place, seconds: float, runs: int, kills: int, seed: int) -> tuple[Story, str]:
    """Kill the suite as often as asked, looking at what is left each time, then let it finish.

    Undisturbed it takes so many `seconds` to make so many `runs`. Also returns what it printed.
    """
    story, draw, kept = Story(), random.Random(seed), dict[str, str]()
    while True:
        undone = 1 - len(list(place.runs.glob("*/*/record.json"))) / runs
        share = 2 * seconds * undone / (kills - story.kills + 1)
        last = story.kills == kills or story.faults
        running = place.start()
        running.process.join(STUCK if last else draw.random() * (STARTUP + share))
        story.kills += running.alive
        strike(running)
        answer, now = running.result(), finished(place)
        story.processes += 1
        story.continued += "continuing at step" in answer.err
        story.faults += [*changed(kept, now), *torn(place)]
        kept = now
        if answer.code not in (0, -signal.SIGKILL):
            story.faults.append(f"bench run ended with {answer.code}: {answer.err[-300:]}")
        if last:
            return story, answer.out


def strike(running: Running) -> None:
    """SIGKILL for all that is left of it, its workers, too."""
    with suppress(ProcessLookupError):  # it is through, or has no group of its own yet
        os.killpg(running.process.pid or 0, signal.SIGKILL)
    running.kill()


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
    try:
        same = table(whole) == table(killed)
    except DataError as error:
        return [*found, str(error)]
    return found + torn(killed) + ["the tables are not the same"] * (not same)


def table(place: Place) -> str:
    return markdown(Table.of(read_records(place.runs, "evaluation"), place.runs))


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
        if name.rpartition("|")[2] not in FREE and one.get(name) != other.get(name):
            yield f"{name} was {one.get(name)!r:.100}, is {other.get(name)!r:.100}"


def parts(path: Path) -> dict[str, Any]:
    """The numbers and texts of a file in JSON, by line and name; else its bytes."""
    if ".json" in path.suffix:
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        with suppress(ValueError):
            loaded = [json.loads(line) for line in lines]
            return {f"{i}|{k}": v for i, line in enumerate(loaded, 1) for k, v in flat(line)}
    return {"content": path.read_bytes()}


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested names with dots between them."""
    for name, each in value.items():
        if isinstance(each, dict):
            yield from flat(each, f"{prefix}{name}.")
        else:
            yield prefix + name, each


# ---- all of it
def experiment(
    root: Path, suite: str, kills: int, seed: int, tell: Callable[[str], object] = print
) -> tuple[Story, list[str]]:
    """The story of the kills, and all that is wrong; places `whole` and `killed` are left."""
    (root / "suite.toml").write_text(suite)
    whole, killed = Place(root / "whole"), Place(root / "killed")
    ask("--version")  # what the processes are forked from has imported everything
    began = time.monotonic()
    undisturbed = whole.start().result(STUCK)
    seconds = time.monotonic() - began
    if undisturbed.code:
        raise RuntimeError(undisturbed.err)
    tell(f"undisturbed: {seconds:.1f} s")
    runs = len(list(whole.runs.glob("*/*/record.json")))
    story, printed = disturbed(killed, seconds, runs, kills, seed)
    tell(f"{story.kills} kills, {story.continued} of {story.processes} processes continued")
    wrong = [*story.faults, *differences(whole, killed)]
    if printed != undisturbed.out:
        wrong.append("what was printed is not the same")
    verified = ask("verify", killed.runs)
    return story, wrong + [verified.out + verified.err] * bool(verified.code)


def main() -> int:
    parser = argparse.ArgumentParser(description="kill a suite at random moments")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    asked = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    CONTEXT.set_forkserver_preload(PRELOADED)
    root = Path(tempfile.mkdtemp(prefix="kills-"))
    _, wrong = experiment(root, LONG, asked.kills, asked.seed)
    print("\n".join(wrong or ["equal"]), f"\nboth places are kept in {root}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
