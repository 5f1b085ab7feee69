"""Batches of stored squares against torchvision's ImageFolder in a DataLoader, and their growth.

    python tests/perf/loader.py                  # 1,024 images, 5 repetitions, sets up to 100,000
    python tests/perf/loader.py 64 1 400         # a quick look

Both give the same: uint8 batches, cropped and mirrored at random, of the same JPEGs. Theirs are
decoded and resized each time, ours were before the time is taken. They take turns, so that a busy
machine does not make the ratio. JPEGs are those of $SSL_BENCH_DATA/imagenette-128, else scenes.

Growth is measured on made stores of random squares, which nothing had to decode. Memory is the
anonymous memory of a process of its own (/proc/self/smaps_rollup), at its highest after a batch:
resident memory would count the mapped file, whose pages the system takes back when it needs them.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from ssl_bench import catalogue
from ssl_bench.counter import Randomness
from ssl_bench.data.store.squares import ImageStore, Index, open_store, stored_size
from ssl_bench.data.string_array import StringArray
from ssl_bench.training.augment import random_crop_flip
from ssl_bench.training.batches import Batches

CPU = torch.device("cpu")
SHAPES = ((96, 64), (96, 256), (128, 64), (128, 256))  # px of a crop, images of a batch
GROWTH = (64, 128)  # the same, of the made stores
SEEN = 20_000  # images that a time of growth is taken over


def lines(images: int = 1024, repetitions: int = 5, most: int = 100_000) -> Iterator[str]:
    """The report, line by line as it is known."""
    name = re.findall("model name.*: (.*)", Path("/proc/cpuinfo").read_text())[0]
    yield f"{name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    with TemporaryDirectory() as folder:
        os.environ["SSL_BENCH_CACHE"] = f"{folder}/cache"
        root = photographs(Path(folder) / "photos", images)
        for size, batch in SHAPES:
            yield from compared(root, size, min(batch, images), repetitions)
    yield from growth(repetitions, most)
    peaks = [anonymous_of(count) for count in (most // 10, most)]
    yield (
        f"anonymous memory, {most // 10} and {most} images: {peaks[0]} and {peaks[1]} MiB, "
        f"growth {peaks[1] / peaks[0] - 1:+.1%}"
    )


def photographs(root: Path, count: int) -> Path:
    """A folder with train/all, of so many JPEGs."""
    (root / "train/all").mkdir(parents=True)
    given = Path(os.environ.get("SSL_BENCH_DATA", "")) / "imagenette-128"
    if found := sorted(given.glob("train/*/*.jpg")):
        for i, path in enumerate(found[:: max(1, len(found) // count)][:count]):
            shutil.copy(path, root / f"train/all/{i}.jpg")
    else:
        scenes = open_store(catalogue.dataset(f"scenes:train={count},test=1"), "train", 128)
        for i, pixels in enumerate(scenes.pixels):
            Image.fromarray(pixels).save(root / f"train/all/{i}.jpg", quality=90)
    return root


def compared(root: Path, size: int, batch: int, repetitions: int) -> Iterator[str]:
    """Times of passes over all images in turn: ours, theirs here, theirs by two processes."""
    store = open_store(catalogue.dataset(f"folder:{root}"), "train", size)
    steps = len(store) // batch
    rivals = [partial(deque, of_folder(root, size, batch, n), maxlen=0) for n in (0, 2)]
    runs: list[Callable[[], object]] = [
        partial(ours, store, size, batch, steps), *rivals, partial(ours, store, None, batch, steps)
    ]  # fmt: skip
    for run in runs:  # starts the processes, and touches all pages
        run()
    times = [[timed(run) for run in runs] for _ in range(repetitions)]
    here, two = (median(t[n][0] / t[0][0] for t in times) for n in (1, 2))
    core = [steps * batch / median(t[n][1] for t in times) for n in (0, 1, 3)]
    yield (
        f"{size} px, batches of {batch}: {here:.1f} × as fast as a DataLoader without processes, "
        f"{two:.1f} × as with two; of one core {core[0]:.0f} images/s, theirs {core[1]:.0f}; "
        f"ours before crop and flip {core[2]:.0f}"
    )


def ours(store: ImageStore, size: int | None, batch: int, steps: int) -> None:
    """As the loop takes batches, with a pretext's crops; without them if there is no size."""
    every, positions = torch.arange(len(store)), torch.arange(batch)
    with closing(Batches(store, every, 0, batch, positions).read_ahead(range(steps), CPU)) as them:
        for step, (rows, *_) in enumerate(them):
            if size is not None:
                random_crop_flip(rows["images"], size, Randomness(0, step, positions))


def of_folder(root: Path, size: int, batch: int, processes: int) -> DataLoader[Tensor]:
    """Theirs, of the same images, resized to the same squares."""
    transform = transforms.Compose([
        transforms.Resize(stored_size(size)),
        transforms.RandomCrop(size),
        transforms.RandomHorizontalFlip(),
        transforms.PILToTensor(),
    ])  # fmt: skip
    images = ImageFolder(str(root / "train"), transform)
    return DataLoader(
        images, batch, shuffle=True, drop_last=True,
        num_workers=processes, persistent_workers=processes > 0,
    )  # fmt: skip


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of all cores in this process."""
    wall, cores = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cores


def growth(repetitions: int, most: int) -> Iterator[str]:
    """Seconds of one core an image, in sets of several sizes in turn."""
    counts, (size, batch) = (most // 100, most // 10, most), GROWTH
    with TemporaryDirectory() as folder:
        stores = [made_store(Path(folder) / str(count), count) for count in counts]
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for crop in (None, size):
                steps = -(-min(SEEN, most) // batch)
                runs = [partial(ours, store, crop, batch, steps) for store in stores]
                times = [[timed(run)[1] for run in runs] for _ in range(repetitions + 1)][1:]
                rates = [steps * batch / median(t) for t in zip(*times, strict=True)]
                costs = [median(t[n] / t[0] for t in times) - 1 for n in (1, 2)]
                yield (
                    f"sets of {', '.join(map(str, counts))}, {size} px, {threads} "
                    f"thread{'s' * (threads > 1)}, {'gathered' if crop is None else 'cropped'}: "
                    f"{', '.join(f'{rate:.0f}' for rate in rates)} images/s of one core; cost of "
                    f"an image {costs[0]:+.1%} and {costs[1]:+.1%}"
                )


def made_store(folder: Path, count: int) -> ImageStore:
    """Random squares with an index as long as one of photographs."""
    side = stored_size(GROWTH[0])
    folder.mkdir()
    noise = np.random.default_rng(0).integers(256, size=(min(count, 1000), side, side, 3))
    block = noise.astype(np.uint8).tobytes()
    with open(folder / "images.bin", "wb") as file:
        for start in range(0, count, 1000):
            file.write(block[: (count - start) * side**2 * 3])
    index = Index(
        size=side, classes=("all",), labels=np.zeros(count, np.int64), skipped=[], digest="made",
        names=StringArray.of(f"train/all/{i:08}.jpg" for i in range(count)),
        digests=StringArray.of(f"{i:064x}" for i in range(count)),
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
    )  # fmt: skip
    return ImageStore(folder, index)


def anonymous_of(count: int) -> int:
    """MiB of anonymous memory, at most, of a process that passes over a made store once."""
    command = [sys.executable, __file__, "memory", str(count)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def highest_anonymous(count: int) -> int:
    """The same of this process."""
    highest, batch = 0, GROWTH[1]
    with TemporaryDirectory() as folder:
        store = made_store(Path(folder) / "made", count)
        batches = Batches(store, torch.arange(count), 0, batch, torch.arange(batch))
        with closing(batches.read_ahead(range(-(-count // batch)), CPU)) as arriving:
            for _ in arriving:
                said = Path("/proc/self/smaps_rollup").read_text()
                highest = max(highest, int(re.findall(r"Anonymous: +(\d+) kB", said)[0]))
    return highest >> 10


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        print(highest_anonymous(int(sys.argv[2])))
    else:
        for line in lines(*map(int, sys.argv[1:])):
            print(line, flush=True)
