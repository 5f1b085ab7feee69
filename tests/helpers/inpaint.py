"""Holes, masks and networks that fill, for tests of `bench inpaint`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from helpers.bench import Result
from ssl_bench.pictures.photograph import read_photograph

SIZE = 128  # of the network's input
CENTRAL = 50 / 128  # of the side: the central network's reach, and the central hole
REACHES = [CENTRAL, 1.0]
Box = tuple[int, int, int, int]  # top, left, height, width
Paint = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Runs:
    """A workspace, and references to what was trained there, the oldest first."""

    workspace: Path
    central: str
    region: str
    random: str

    def network(self, kind: str) -> tuple[str, ...]:
        """Options of the command line."""
        return ("--workspace", str(self.workspace), "--encoder", getattr(self, kind))


def box_hole(height: int, width: int, *boxes: Box) -> np.ndarray:
    hole = np.zeros((height, width), bool)
    for top, left, down, across in boxes:
        hole[top : top + down, left : left + across] = True
    return hole


def save_mask(hole: np.ndarray, path: Path) -> Path:
    Image.fromarray(hole.astype(np.uint8) * 255).save(path)
    return path


def values_of(path: Path) -> np.ndarray:
    return read_photograph(path).values


def only_said(result: Result) -> str:
    """The one line that names a bad image."""
    lines = [line for line in result.err.splitlines() if line.startswith("bench: ")]
    assert len(lines) == 1, result.err
    assert result.code == 1
    return lines[0]
