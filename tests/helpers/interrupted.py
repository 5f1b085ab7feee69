"""Training that is interrupted."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch


@contextmanager
def interrupted_at(step: int) -> Iterator[None]:
    """Ctrl-C arrives in the middle of a step."""
    from pretext.context_encoder import ContextEncoder

    train_step = ContextEncoder.train_step

    def interrupt(self: Any, images: torch.Tensor, now: Any) -> Any:
        if now.index == step:
            signal.raise_signal(signal.SIGINT)
        return train_step(self, images, now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContextEncoder, "train_step", interrupt)
        yield
