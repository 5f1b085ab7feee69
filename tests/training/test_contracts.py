"""What the loop promises a task: epochs, its course, the batch, precision, what is saved."""

import json
import signal
from collections.abc import Mapping
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers.stub_device import stub_device
from ssl_bench import catalogue
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.errors import UsageError
from ssl_bench.runtime import Runtime
from ssl_bench.training.build import open_pretext
from ssl_bench.training.loop import Interrupted, train
from ssl_bench.training.pretext import EncoderConfig, Pretext, PretextConfig, Step, TrainConfig
from ssl_bench.training.pretrain import pretrain

IMAGES, BATCH, STEPS = 10, 4, 10
EPOCHS = [(0, 0), (1, 3), (2, 5), (3, 8)]  # and the steps that they begin at: 4 · 3 is beyond 10
CONFIG = TrainConfig(steps=STEPS, batch_size=BATCH, lr=0.1)


class Store:
    """Images with a depth beside each."""

    def __len__(self) -> int:
        return IMAGES

    def batch(self, which: np.ndarray) -> Mapping[str, Tensor]:
        numbers = torch.from_numpy(which)
        images = numbers[:, None, None, None].expand(-1, 3, 2, 2).byte()
        return {"images": images, "depth": numbers.float()}


class Task(nn.Module):
    """Notes what it is told; what `between` keeps decides what is learnt."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.notes = nn.Linear(12, 1), list[Any]()
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.register_buffer("seen", torch.zeros(IMAGES))
        self.stop_at = -1

    def optimizers(self) -> list[torch.optim.Optimizer]:
        self.sgd = torch.optim.SGD(self.layer.parameters(), lr=0.1)
        return [self.sgd]

    def between(self, store: Any, epoch: int) -> None:
        self.eval()
        self.notes.append(("epoch", epoch))
        self.seen += store.batch(np.arange(len(store)))["depth"] * (epoch + self.layer.weight.sum())

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        assert self.training
        if step.index == self.stop_at:
            signal.raise_signal(signal.SIGINT)
        self.notes.append(("step", step.index))
        torch.testing.assert_close(step.batch["depth"], step.indices.float())
        assert step.batch["images"] is images
        assert step.done == step.index / STEPS
        target = self.seen[step.indices]
        loss = (self.layer(images.flatten(1) / 255)[:, 0] - target).square().mean()
        step.update(self.sgd, loss)
        return {"loss": loss.detach()}


def run(task: Task, folder: Path) -> Task:
    folder.mkdir(exist_ok=True)
    train(task, Store(), CONFIG, 0, Runtime(workers=0, devices="1"), folder)
    return task


def test_before_each_epoch_the_task_looks_at_the_set(tmp_path):
    notes = run(Task(), tmp_path).notes
    begun = [(one[1], next_[1]) for one, next_ in pairwise(notes) if one[0] == "epoch"]
    assert begun == EPOCHS


@pytest.mark.parametrize("stop_at", [2, 3, 4])  # 3 begins an epoch
def test_a_resumed_run_begins_each_epoch_as_the_whole_one(stop_at, tmp_path):
    whole = run(Task(), tmp_path / "whole")
    stopped = Task()
    stopped.stop_at = stop_at
    with pytest.raises(Interrupted):
        run(stopped, tmp_path / "cut")
    again = run(Task(), tmp_path / "cut")
    assert weights_digest(again.state_dict()) == weights_digest(whole.state_dict())
    assert stopped.notes + again.notes == whole.notes


class Picky(Task):
    """Has each epoch visit the images from its number on, in pairs."""

    visits: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("visits", torch.arange(IMAGES))

    def between(self, store: Any, epoch: int) -> None:
        super().between(store, epoch)
        self.visits.copy_(epoch + torch.arange(IMAGES) // 2)

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        self.notes.append(("seen", step.indices.tolist()))
        return super().train_step(images, step)


@pytest.mark.parametrize("stop_at", [2, 3, 4])
def test_a_task_decides_what_an_epoch_visits(stop_at: int, tmp_path: Path) -> None:
    """Nothing that was read ahead is of the epoch before; a resumed run goes on within one."""
    whole, stopped, folder = run(Picky(), tmp_path / "whole"), Picky(), tmp_path / "cut"
    seen = [indices for kind, indices in whole.notes if kind == "seen"]
    for (epoch, begin), (_, end) in pairwise([*EPOCHS, (4, STEPS)]):
        visited = {index for indices in seen[begin:end] for index in indices}
        assert visited <= set(range(epoch, epoch + IMAGES // 2))
    # 12 visits in the first three steps: each place once, and two of the next epoch's order.
    counts = np.bincount(np.concatenate(seen[:3]))
    assert counts.min() == 2
    assert counts.sum() == 12
    stopped.stop_at = stop_at
    with pytest.raises(Interrupted):
        run(stopped, folder)
    again = run(Picky(), folder)
    assert weights_digest(again.state_dict()) == weights_digest(whole.state_dict())
    assert stopped.notes + again.notes == whole.notes


class Loss(nn.Module):
    """Notes in which precision it is asked for a product, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.types = nn.Linear(12, 12), dict[str, torch.dtype]()

    def optimizers(self) -> list[torch.optim.Optimizer]:
        self.sgd = torch.optim.SGD(self.layer.parameters(), lr=0.1)
        return [self.sgd]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        given = self.layer(images.flatten(1) / 255)
        product = given @ given.T  # of the task's own, outside its children
        product.register_hook(lambda _: self.types.update(backward=(self.ones @ self.ones).dtype))
        self.types["forward"] = product.dtype
        step.update(self.sgd, product.float().mean())
        return {}

    ones = torch.ones(2, 2)


@pytest.mark.parametrize(
    ("precision", "forward"), [("bf16", torch.bfloat16), ("32", torch.float32)]
)
def test_the_whole_step_has_the_precision_and_gradients_those_of_their_forward(
    precision, forward, tmp_path
):
    task = Loss()
    config = CONFIG.model_copy(update={"precision": precision})
    train(task, Store(), config, 0, Runtime(workers=0, devices="1"), tmp_path)
    assert task.types == {"forward": forward, "backward": torch.float32}


# ---- what is saved


class Teaching(Pretext):
    """The teacher is the encoder that others get; it holds a number for each image."""

    Config, version, exported = PretextConfig, 1, "teacher.encoder"
    memory: Tensor

    def __init__(self, config: Any, encoder: Any, normalization: Any) -> None:
        super().__init__(config, encoder, normalization)
        self.teacher = nn.ModuleDict({"encoder": deepcopy(encoder)}).requires_grad_(False)

    def prepare(self, images: int) -> None:
        self.register_buffer("memory", torch.zeros(images))

    def optimizers(self) -> list[torch.optim.Optimizer]:
        self.sgd = torch.optim.SGD(self.encoder.parameters(), lr=0.1)
        return [self.sgd]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        maps = self.encoder(self.normalization.apply(images[..., :64, :64]), ["pool5"])["pool5"]
        step.update(self.sgd, maps.square().mean())
        for own, its in zip(self.teacher.parameters(), self.encoder.parameters(), strict=True):
            own.data.lerp_(its.data, 0.5)
        self.memory[step.indices] = maps.detach().flatten(1).mean(1)
        return {}


@pytest.fixture
def teaching(monkeypatch):
    plain = catalogue.pretext
    monkeypatch.setattr(
        catalogue, "pretext", lambda name: Teaching if name == "teaching" else plain(name)
    )


SETTINGS = {"image_size": 64, "width": 0.1, "init": "fan-in", "steps": 2, "batch_size": 4}


def made(tmp_path: Path) -> Any:
    config = PretextConfig(**SETTINGS)
    return pretrain("teaching", config, "scenes:train=6,test=2", tmp_path, Runtime(workers=0))


def test_the_teacher_is_what_is_saved_and_all_is_opened_again(teaching, tmp_path):
    record = made(tmp_path)
    (folder,) = (tmp_path / "pretrain").iterdir()
    opened: Any = open_pretext(record, folder)
    digest = record.details.encoder.digest
    assert weights_digest(opened.teacher["encoder"].state_dict()) == digest
    assert weights_digest(opened.encoder.state_dict()) != digest
    assert opened.memory.shape == (6,)
    assert opened.memory.count_nonzero() == 6


def test_a_teacher_a_queue_and_statistics_are_on_the_device(teaching, tmp_path):
    with stub_device():
        record = made(tmp_path)
    assert record.details.encoder.digest != record.details.encoder.start


def test_a_child_that_is_no_encoder_cannot_be_exported(teaching, tmp_path, monkeypatch):
    monkeypatch.setattr(Teaching, "exported", "memory")
    with pytest.raises(UsageError, match="exported names no encoder: memory"):
        made(tmp_path)


def test_random_weights_are_those_that_training_began_with(teaching, tmp_path):
    random = pretrain(
        "random", EncoderConfig(image_size=64, width=0.1, init="fan-in"), "scenes:train=6,test=2",
        tmp_path / "floor", Runtime(workers=0),
    )  # fmt: skip
    assert json.loads(made(tmp_path).text)["details"]["encoder"]["start"] == (
        random.details.encoder.digest
    )
