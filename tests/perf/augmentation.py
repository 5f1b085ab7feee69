"""SimCLR's views by `training/views.py` against torchvision's transforms of PIL images.

    python tests/perf/augmentation.py                  # 2,048 images, 7 repetitions
    python tests/perf/augmentation.py 256 2            # a quick look

Ours: batches of stored squares; theirs: transforms.v2 of images that are decoded already. Both are
made by a DataLoader's two workers, of one thread each, and take turns on the same machine, so that
a busy or slow one does not make the ratio.
"""

import sys
from collections import deque
from collections.abc import Iterator
from functools import partial
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from eval.perf_probes import timed
from ssl_bench.counter import Randomness, generator
from ssl_bench.training.views import simclr_view

BATCH = 256
WORKERS = 2
SIZES = ((64, 72, 1), (224, 256, 8))  # px of a view and of the stored square, a share of the images


def lines(images: int = 2048, repetitions: int = 7) -> Iterator[str]:
    """The report, line by line as it is known."""
    for size, side, fewer in SIZES:
        count = images // fewer
        squares = torch.randint(256, (count, side, side, 3), generator=generator(side)).byte()
        loaders = of_batches(squares, size), of_pictures(squares.numpy(), size)
        ours, theirs = (partial(deque, loader, maxlen=0) for loader in loaders)
        ours()  # starts the workers, as the next line does
        theirs()
        pairs = [(timed(ours), timed(theirs)) for _ in range(repetitions)]
        a, b = (median(times) for times in zip(*pairs, strict=True))
        yield (
            f"{size} px from {side} px, {count} images: ours {count / a:.0f} images/s, torchvision "
            f"{count / b:.0f} images/s: {median(b / a for a, b in pairs):.1f} × faster"
            + ("; aim: ≥ 3" if size == 64 else "")
        )


class Views(Dataset[Tensor]):
    """A view of each image by the number of a batch."""

    def __init__(self, squares: Tensor, size: int) -> None:
        self.batches, self.size = squares.split(BATCH), size

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, step: int) -> Tensor:
        pixels = self.batches[step].permute(0, 3, 1, 2)
        return simclr_view(pixels, self.size, Randomness(0, step, torch.arange(len(pixels))))


def of_batches(squares: Tensor, size: int) -> DataLoader[Tensor]:
    """Ours, of uint8 (N, R, R, 3)."""
    views = Views(squares, size)
    return DataLoader(views, batch_size=None, num_workers=WORKERS, persistent_workers=True)


class Transformed(Dataset[Tensor]):
    """The same by torchvision, an image at a time."""

    def __init__(self, squares: np.ndarray, size: int) -> None:
        self.images = [Image.fromarray(square) for square in squares]
        kernel = size // 10 // 2 * 2 + 1
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(size),
                v2.RandomHorizontalFlip(),
                v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
                v2.RandomGrayscale(0.2),
                v2.RandomApply([v2.GaussianBlur(kernel, (0.1, 2.0))], 0.5),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(self.images[index])


def of_pictures(squares: np.ndarray, size: int) -> DataLoader[Tensor]:
    """Theirs, of the same."""
    images = Transformed(squares, size)
    return DataLoader(images, BATCH, num_workers=WORKERS, persistent_workers=True)


if __name__ == "__main__":
    for line in lines(*map(int, sys.argv[1:])):
        print(line, flush=True)
