"""Training that is interrupted."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from pretext.context_encoder import ContextEncoder
from ssl_bench.runtime import Runtime
from ssl_bench.training.pretrain import pretrain


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


def assert_stopping_changes_nothing(method: str, config: Any, place: Path, images: int = 8) -> None:
    """A run that is stopped behind its second step and begun again ends with the same bits."""
    data, runtime = f"scenes:train={images},test=4", Runtime(workers=0, devices="1")
    places = place / "whole", place / "stopped"
    pretrain(method, config, data, places[1], runtime, until=2)
    whole, again = (pretrain(method, config, data, each, runtime) for each in places)
    assert (again.details.training or {})["resumed_at"] == 2
    assert whole.files == again.files
    assert whole.metrics == again.metrics
