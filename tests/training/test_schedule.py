"""Courses of the learning rate: PyTorch's own schedulers are the oracle."""

import pytest
import torch
from pydantic import ValidationError
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from ssl_bench.training.pretext import PretextConfig, TrainConfig
from ssl_bench.training.schedule import SCHEDULES, rate_factor


@pytest.mark.parametrize(("steps", "warmup"), [(20, 0), (20, 5), (7, 6)])
def test_warm_up_and_cosine_are_those_of_torch(steps, warmup):
    """The first step has the first part of the rate, as torch's LinearLR from 1 / warmup."""
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    cosine = CosineAnnealingLR(sgd, steps - warmup)
    oracle = cosine
    if warmup:
        rise = LinearLR(sgd, 1 / warmup, 1.0, max(warmup - 1, 1))
        oracle = SequentialLR(sgd, [rise, cosine], [warmup])
    expected = []
    for _ in range(steps):
        expected.append(sgd.param_groups[0]["lr"])
        sgd.step()
        oracle.step()
    found = [rate_factor("cosine", step, steps, warmup) for step in range(steps)]
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_method_may_bring_a_course_of_its_own(monkeypatch):
    with pytest.raises(ValidationError, match="takes constant, cosine, step, halve, drop"):
        TrainConfig(steps=4, batch_size=1, lr=1, schedule="poly")
    monkeypatch.setitem(SCHEDULES, "poly", lambda done: (1 - done) ** 2)
    config = TrainConfig(steps=4, batch_size=1, lr=1, schedule="poly")
    assert rate_factor(config.schedule, 2, 4) == 0.25


def test_warm_up_ends_before_the_training():
    with pytest.raises(ValidationError, match="--warmup 4 is not below --steps 4"):
        TrainConfig(steps=4, batch_size=1, lr=1, warmup=4)


def test_without_warm_up_settings_are_those_of_earlier_records():
    """The key of a run is made of them."""
    assert "warmup" not in PretextConfig().model_dump()
    assert PretextConfig(warmup=10).model_dump()["warmup"] == 10
