"""Training that is interrupted."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from pretext.context_encoder import ContextEncoder


@contextmanager
def interrupted_at(step: int, task: Any = ContextEncoder) -> Iterator[list[int]]:
    """Ctrl-C arrives in the middle of a step; the steps that are begun are noted."""
    train_step, begun = task.train_step, list[int]()

    def interrupt(self: Any, images: torch.Tensor, now: Any) -> Any:
        begun.append(now.index)
        if now.index == step:
            signal.raise_signal(signal.SIGINT)
        return train_step(self, images, now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "train_step", interrupt)
        yield begun
