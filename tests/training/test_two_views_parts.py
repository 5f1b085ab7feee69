"""What methods of two views share: teacher, queue, optimisers, the watch over collapse."""

import math
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.refusals import fails
from ssl_bench import catalogue
from ssl_bench.counter import Randomness
from ssl_bench.data.normalization import HALF
from ssl_bench.training.build import build_pretext
from ssl_bench.training.checkpoint import load_optimizer
from ssl_bench.training.collapse import collapse_warning, dimensions, spread
from ssl_bench.training.heads import mlp
from ssl_bench.training.optimizers import build_optimizer
from ssl_bench.training.pretext import EncoderConfig, Step
from ssl_bench.training.queue import Queue
from ssl_bench.training.teacher import cosine_course, follow, teacher_of

TOY = {"arch": "timm:test_efficientnet", "image_size": 32, "projector": (8,), "batch_size": 4}


def task_of(method: str, **settings: Any) -> Any:
    config = catalogue.pretext(method).Config.model_validate({**TOY, **settings})
    return build_pretext(method, config, HALF)[0].train()


def step_of(index: int, steps: int) -> Step:
    places = torch.arange(4)
    random = Randomness(0, index, places)
    return Step(index, places, random, lambda loss: loss.backward(), done=index / steps)


def images() -> torch.Tensor:
    return torch.randint(256, (4, 3, 36, 36), generator=torch.Generator().manual_seed(0)).byte()


# ---- teacher and queue
def test_a_teacher_is_a_running_mean_of_weights_and_keeps_its_own_statistics() -> None:
    student: Any = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    teacher: Any = teacher_of(student)
    before = teacher[0][0].weight.clone()
    with torch.no_grad():
        student[0].weight.add_(1)
    student(torch.randn(4, 2))  # moves the student's statistics
    follow(teacher, (student,), 0.9)
    torch.testing.assert_close(teacher[0][0].weight, before + 0.1)
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert teacher[0][1].running_mean.eq(0).all()


def test_byols_momentum_is_the_papers() -> None:
    """τ = 1 − (1 − τ₀) (cos(πk/K) + 1) / 2."""
    for done in (0, 0.25, 0.7, 1):
        paper = 1 - (1 - 0.996) * (math.cos(math.pi * done) + 1) / 2
        assert cosine_course(0.996, 1.0, done) == pytest.approx(paper, abs=1e-15)
    assert cosine_course(0.99, 0.99, 0.3) == pytest.approx(0.99)


@pytest.mark.parametrize("method", ["byol", "moco-v2"])
def test_the_teacher_follows_behind_each_update(method: str) -> None:
    """By the momentum of the step, of weights that the update has moved already."""
    task = task_of(method, momentum=0.75, recipe="small", lr=1.0)
    task.optimizers()
    start = [weight.clone() for weight in task.teacher.parameters()]
    task.train_step(images(), step_of(0, 4))
    learnt = [*task.encoder.parameters(), *task.projector.parameters()]
    for own, was, its in zip(task.teacher.parameters(), start, learnt, strict=True):
        torch.testing.assert_close(own, 0.75 * was + 0.25 * its)


def test_the_queue_forgets_the_oldest() -> None:
    queue = Queue(6, 3, seed=0)
    assert queue.keys.norm(dim=1) == pytest.approx(torch.ones(6), abs=1e-6)
    keys = [torch.full((4, 3), float(index)) for index in range(3)]
    for index, each in enumerate(keys):
        queue.remember(each, index)
    # Four of step 2, and the two newer ones of step 1.
    assert sorted(queue.keys[:, 0].tolist()) == [1, 1, 2, 2, 2, 2]


def test_a_queue_that_holds_no_batch_is_refused(bench, tmp_path) -> None:
    words = ("pretrain", "moco-v2", "--queue", 8, "--batch-size", 16, "--workspace", tmp_path)
    fails(bench(*words), 2, "does not hold a batch of 16")


# ---- optimisers
def test_biases_and_scales_neither_decay_nor_are_adapted_by_lars() -> None:
    """timm's LARS against its formula: trust 0.001 ‖w‖ / (‖g‖ + d ‖w‖) on g + d w."""
    net = nn.Linear(3, 2)
    optimizer = build_optimizer("lars", [net], lr=0.5, weight_decay=0.01)
    weight, bias = net.weight.detach().clone(), net.bias.detach().clone()
    net.weight.grad, net.bias.grad = torch.ones(2, 3), torch.ones(2)
    optimizer.step()
    trust = 0.001 * weight.norm() / (6**0.5 + 0.01 * weight.norm())
    torch.testing.assert_close(net.weight.detach(), weight - 0.5 * trust * (1 + 0.01 * weight))
    torch.testing.assert_close(net.bias.detach(), bias - 0.5)


@pytest.mark.parametrize(("name", "decays"), [("sgd", True), ("lars", False), ("adamw", False)])
def test_which_weights_decay(name: Any, decays: bool) -> None:
    groups = build_optimizer(name, [nn.Linear(3, 2)], 0.5, 0.01, lr_vectors=0.1).param_groups
    found = {group["params"][0].ndim: (group["weight_decay"], group["lr"]) for group in groups}
    assert found == {2: (0.01, 0.5), 1: (0.01 if decays else 0.0, 0.1)}


def test_lars_is_taken_up_from_a_checkpoint() -> None:
    """Its memory too, though torch's choices of how to compute an update are none of its."""
    net, other = nn.Linear(3, 2), nn.Linear(3, 2)
    begun, resumed = (build_optimizer("lars", [each], 0.5, 0.01) for each in (net, other))
    for _ in range(2):
        net.weight.grad, net.bias.grad = torch.ones(2, 3), torch.ones(2)
        begun.step()
    other.load_state_dict(net.state_dict())
    load_optimizer(resumed, deepcopy(begun.state_dict()))
    for each, optimizer in ((net, begun), (other, resumed)):
        each.weight.grad, each.bias.grad = torch.ones(2, 3), torch.ones(2)
        optimizer.step()
    assert torch.equal(net.weight, other.weight)


def test_lars_is_refused_for_transformers(bench, tmp_path) -> None:
    words = ("--arch", "timm:test_vit", "--image-size", 160, "--data", "scenes:train=2,test=2")
    made = bench("pretrain", "byol", *words, "--workers", 0, "--workspace", tmp_path)
    fails(made, 2, "--optimizer lars is for networks with batch normalisation")


def test_simsiams_predictor_keeps_its_rate_against_the_schedule() -> None:
    for constant, expected in ((True, 0.05 * 4 / 256), (False, 1e-9)):
        task = task_of("simsiam", constant_predictor=constant, predictor=4)
        (optimizer,) = task.optimizers()
        assert {id(w) for w in optimizer.param_groups[-1]["params"]} == {
            id(weight) for weight in task.predictor.parameters()
        }
        for group in optimizer.param_groups:
            group["lr"] = 1e-9  # as the loop sets it
        task.train_step(images(), step_of(0, 4))
        assert [group["lr"] for group in optimizer.param_groups] == [1e-9, expected]


def test_barlow_twins_biases_learn_slowly() -> None:
    (optimizer,) = task_of("barlow-twins").optimizers()
    rates = {group["params"][0].ndim == 1: group["lr"] for group in optimizer.param_groups}
    assert rates[False] == pytest.approx(0.2 * 4 / 256)
    assert rates[True] == pytest.approx(0.0048 * 4 / 256)


# ---- heads
def test_heads_are_the_papers() -> None:
    config = EncoderConfig(arch="timm:test_efficientnet")
    parts = [type(part).__name__ for part in mlp(4, 3, 2, config=config, key="h", norm_out=True)]
    hidden = ["Flatten", "Linear", "BatchNorm1d", "ReLU"]
    assert parts == [*hidden, "Linear", "BatchNorm1d"]
    moco = mlp(4, 3, 2, config=config, key="h", norm=False)
    assert [type(part).__name__ for part in moco] == ["Flatten", "Linear", "ReLU", "Linear"]
    barlow: Any = mlp(4, 3, 2, config=config, key="h", bias_out=False)
    assert barlow[1].bias is None
    assert barlow[-1].bias is None


# ---- collapse
def test_spread_is_1_on_the_sphere_and_0_at_a_point() -> None:
    draw = torch.Generator().manual_seed(0)
    assert float(spread(torch.randn(4000, 16, generator=draw))) == pytest.approx(1, abs=0.01)
    assert float(spread(torch.ones(10, 16))) == pytest.approx(0, abs=1e-6)
    # Half at one pole, half at the other: one dimension of 16 deviates by 1.
    poles = F.one_hot(torch.zeros(10, dtype=torch.int64), 16) * torch.tensor([[1.0], [-1.0]] * 5)
    assert float(spread(poles)) == pytest.approx(16**0.5 / 16)


@pytest.mark.parametrize("rows", [8, 100])
def test_dimensions_are_those_that_vary_alike(rows: int) -> None:
    """k orthogonal columns of one length in D = 12, whatever their place and scale."""
    draw = torch.Generator().manual_seed(0)
    centred = torch.randn(rows, 5, generator=draw)
    columns = torch.linalg.qr(centred - centred.mean(0)).Q
    features = 1e-3 * F.pad(columns, (0, 7)) + 4
    assert float(dimensions(features)) == pytest.approx(5, rel=1e-2)
    assert float(dimensions(torch.ones(rows, 12))) == pytest.approx(0, abs=1e-6)


def test_collapse_is_said_behind_the_first_tenth() -> None:
    assert collapse_warning({"spread": 0.01}, 0.05) is None
    assert collapse_warning({"spread": 0.5}, 0.5) is None
    assert collapse_warning({"loss": 0.0}, 0.5) is None
    said = collapse_warning({"spread": 0.01}, 0.5)
    assert said is not None
    assert "spread 0.010, below 0.1" in said


def test_a_training_warns_once(bench, tmp_path, monkeypatch) -> None:
    """Of outputs that are one; the record holds the number."""
    monkeypatch.setattr("pretext.simsiam.watched", lambda *_: {"spread": torch.zeros(())})
    toy = ("--recipe", "small", "--arch", TOY["arch"], "--steps", 4, "--batch-size", 4)
    made = bench.ok("pretrain", "simsiam", *toy, "--projector", 8, "--predictor", 4,
                    "--data", "scenes:train=8,test=4", "--workers", 0,
                    "--workspace", tmp_path)  # fmt: skip
    assert made.err.count("the method may have collapsed") == 1
    assert "spread 0" in made.out
