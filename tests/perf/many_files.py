"""Seconds and memory of a set of very many small files: listing, checking, decoding, opening.

    python tests/perf/many_files.py 100000                    # all four
    python tests/perf/many_files.py 1000000 --what list open  # of opening, decoding comes first

The set is N names below 1,000 class folders, hard links to 1,000 PNGs of 8×8 px, each of them
another, so that a million takes no room but that of the names. Each step runs in a process of its
own, which reads images itself (no workers), after a first use that imports what there is to import.
Memory is what resident memory grows by at its highest (VmHWM of /proc/self/status).
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from ssl_bench import catalogue
from ssl_bench.data.store.squares import open_store
from ssl_bench.data.survey import check

STEPS = ("list", "check", "decode", "open")
CLASSES, DISTINCT = 1000, 1000
CROP = 8  # px of a crop: a stored square has 9


def lines(count: int, steps: list[str]) -> Iterator[str]:
    """The report, line by line as it is known."""
    name = re.findall("model name.*: (.*)", Path("/proc/cpuinfo").read_text())[0]
    yield f"{name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    with TemporaryDirectory() as folder:
        os.environ["SSL_BENCH_CACHE"] = f"{folder}/cache"
        made(Path(folder) / "small", 2, 2)
        made(Path(folder) / "files", count, min(CLASSES, count))
        for step in STEPS:
            if step in steps or (step == "decode" and "open" in steps):
                command = [sys.executable, __file__, "child", step, folder]
                told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                seconds, grown = map(float, told.split())
                yield (
                    f"{step} {count:,} files: {seconds:.2f} s, {seconds / count * 1e6:.1f} µs a "
                    f"file; memory grows by {grown:.0f} MiB, {grown * 2**20 / count:.0f} bytes a "
                    "file"
                )


def made(root: Path, count: int, classes: int) -> None:
    """`root`/train with so many names in so many classes."""
    noise = np.random.default_rng(0).integers(256, size=(DISTINCT, 8, 8, 3)).astype(np.uint8)
    origin = root / "train/class-000"
    for label in range(classes):
        (root / f"train/class-{label:03}").mkdir(parents=True)
    for i in range(count):
        path = f"{root}/train/class-{i % classes:03}/image-{i:07}.png"
        if i < DISTINCT:
            Image.fromarray(noise[i]).save(path)
        else:
            # To one of another class each time.
            first = (i * 7 + i // DISTINCT) % DISTINCT
            os.link(f"{origin.parent}/class-{first % classes:03}/image-{first:07}.png", path)


def run(step: str, root: Path) -> None:
    """One step, as a command does it; sets are opened anew."""
    dataset = catalogue.dataset(f"folder:{root}")
    if step == "list":
        dataset.split("train")
    elif step == "check":
        for _ in check(dataset, None, 0):
            pass
    else:
        store = open_store(dataset, "train", CROP, workers=0)
        assert len(store.annotations) == len(store)


def measured(step: str, folder: Path) -> tuple[float, float]:
    """Seconds, and MiB that memory grows by."""
    run(step, folder / "small")
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is that of now
    before, started = highest(), time.perf_counter()
    run(step, folder / "files")
    return time.perf_counter() - started, highest() - before


def highest() -> float:
    """MiB of resident memory at its highest."""
    said = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", said)[0]) / 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        print(*measured(sys.argv[2], Path(sys.argv[3])))
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("count", type=int)
        parser.add_argument("--what", nargs="+", choices=STEPS, default=list(STEPS))
        asked = parser.parse_args()
        for line in lines(asked.count, asked.what):
            print(line, flush=True)
