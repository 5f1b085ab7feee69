"""A small training that several processes share, for `torchrun`: python two_processes.py OUT [NAN].

Each process writes to OUT what it saw, by its rank: the steps at which it waited for the others,
and how it ended. With NAN the second process's loss is not finite at step 9.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_bench.errors import DataError
from ssl_bench.runtime import Runtime
from ssl_bench.training import loop
from ssl_bench.training.pretext import Step, TrainConfig

LINES, STEPS = 5, 40  # a line after every eighth step


class Task(nn.Module):
    """A layer that learns; its loss is the process's number, from 1."""

    def __init__(self, rank: int, broken: bool) -> None:
        super().__init__()
        self.rank, self.broken, self.layer = rank, broken, nn.Linear(12, 1)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        self.sgd = torch.optim.SGD(self.layer.parameters(), lr=1e-3)
        return [self.sgd]

    def train_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        step.update(self.sgd, self.layer(images.flatten(1) / 255).square().mean())
        wrong = self.broken and self.rank == 1 and step.index == 8
        return {"loss": torch.tensor(float("nan") if wrong else 1.0 + self.rank)}


class Store:
    def __len__(self) -> int:
        return 16

    def batch(self, which: np.ndarray) -> dict[str, Tensor]:
        images = torch.from_numpy(which[:, None, None, None] % 256).expand(-1, 3, 2, 2).byte()
        return {"images": images}


def main(out: Path, broken: bool) -> None:
    loop.LOG_LINES = LINES
    runtime = Runtime(workers=0, devices="2")
    fabric: Any = runtime.fabric()
    task, plain, waited = Task(fabric.global_rank, broken), fabric.all_reduce, list[int]()
    seen = [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        waited.append(seen[0])
        return plain(*args, **kwargs)

    def train_step(images: Tensor, step: Step) -> dict[str, Tensor]:
        seen[0] = step.index + 1
        return Task.train_step(task, images, step)

    fabric.all_reduce, task.train_step = counted, train_step
    config, ended = TrainConfig(steps=STEPS, batch_size=4, lr=1e-3), "finished"
    try:
        loop.train(task, Store(), config, 0, runtime, out)
    except DataError as error:
        ended = str(error)
    (out / f"{fabric.global_rank}.json").write_text(json.dumps({"waited": waited, "ended": ended}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), len(sys.argv) > 2)
