"""A weight that no loss reaches, on several devices: it is named, and the way on."""

from collections.abc import Iterator

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ssl_bench.errors import UsageError
from ssl_bench.training.devices import saying_what_is_missing


@pytest.fixture
def group(tmp_path) -> Iterator[None]:
    """This process as all there are: DDP waits for gradients as it does among several."""
    place = f"file://{tmp_path}/group"
    distributed.init_process_group("gloo", init_method=place, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


class Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Linear(2, 2), nn.Linear(2, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images)


def step(task: nn.Module) -> None:
    with saying_what_is_missing(task):
        task.get_submodule("encoder")(torch.ones(4, 2)).sum().backward()


def wrapped(encoder: nn.Module) -> nn.Module:
    task = nn.Module()
    task.encoder = DistributedDataParallel(encoder)
    return task


def test_the_weights_are_named_and_what_to_do(group):
    task = wrapped(Trunk())
    step(task)
    with pytest.raises(
        UsageError, match=r"no loss reaches encoder\.fc\.weight, encoder\.fc\.bias, "
    ):
        step(task)


def test_none_is_named_by_guess(group):
    """Where the gradients of all are gone before the next pass, nothing tells which had none."""
    task = wrapped(Trunk())
    step(task)
    task.zero_grad()
    with pytest.raises(UsageError, match="no loss reaches some weights of Module, "):
        step(task)


def test_one_that_reaches_all_is_left_alone(group):
    encoder = Trunk()
    encoder.fc.requires_grad_(requires_grad=False)
    task = wrapped(encoder)
    step(task)
    step(task)


def test_other_errors_are_not_translated():
    with pytest.raises(RuntimeError, match="out of memory"), saying_what_is_missing(Trunk()):
        raise RuntimeError("out of memory")
