"""SwAV and DINO: losses by NumPy and lightly, queue, prototypes, teacher, centre and courses."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from helpers.interrupted import assert_stopping_changes_nothing
from helpers.refusals import fails
from helpers.steps import images, step_of
from pretext.dino import DINOConfig, DINOHead, cosines
from pretext.swav import SwAVConfig
from ssl_bench import catalogue
from ssl_bench.data.normalization import HALF
from ssl_bench.training.build import build_pretext, exported
from ssl_bench.training.multi_crop import across_views
from ssl_bench.training.sinkhorn import sinkhorn

VIEWS, COUNT, WIDTH = 5, 6, 7
TOY: dict[str, Any] = {
    "recipe": "small", "arch": "timm:test_efficientnet", "image_size": 32, "projector": (8,),
    "batch_size": 4, "small_crops": 1, "steps": 4,
}  # fmt: skip
FEW = {"swav": {"prototypes": 6}, "dino": {"outputs": 6}}


def rows(seed: int, *shape: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=draw, dtype=torch.float64) * 2 - 1


TARGETS = rows(1, 2, COUNT, WIDTH).softmax(2)
LOGITS = rows(2, VIEWS, COUNT, WIDTH)


def task_of(method: str, **settings: Any) -> Any:
    given = TOY | FEW[method] | settings
    config = catalogue.pretext(method).Config.model_validate(given)
    task: Any = build_pretext(method, config, HALF)[0].train()
    task.optimizers()
    return task


# ---- losses
def numpy_across(targets: np.ndarray, logits: np.ndarray) -> float:
    """Pair by pair, image by image."""
    found = []
    for t, by_image in enumerate(targets):
        for v, guesses in enumerate(logits):
            for share, guess in zip(by_image, guesses, strict=True):
                if t != v:
                    found.append(-share @ (guess - np.log(np.exp(guess).sum())))
    return float(np.mean(found))


def test_value_and_gradient() -> None:
    expected = numpy_across(TARGETS.numpy(), 10 * LOGITS.numpy())
    assert float(across_views(TARGETS, 10 * LOGITS)) == pytest.approx(expected, rel=1e-12)
    learning = LOGITS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: across_views(TARGETS, logits), (learning,))


def same(ours: Any, theirs: Any) -> None:
    """Value and gradient, as functions of LOGITS."""
    learning = [LOGITS.clone().requires_grad_() for _ in range(2)]
    values = [loss(logits).squeeze() for loss, logits in zip((ours, theirs), learning, strict=True)]
    torch.testing.assert_close(*values, rtol=1e-12, atol=0)
    found = [torch.autograd.grad(v, logits)[0] for v, logits in zip(values, learning, strict=True)]
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("queued", [0, 9])
def test_swavs_loss_is_lightlys(queued: int) -> None:
    loss = pytest.importorskip("lightly.loss", reason="an oracle, and not installed")
    queue = rows(3, 2, queued, WIDTH)

    def ours(scores: Tensor) -> Tensor:
        codes = [
            sinkhorn(torch.cat([scores[i].detach(), queue[i]]), 0.05)[:COUNT] for i in range(2)
        ]
        return across_views(torch.stack(codes), scores / 0.1)

    def theirs(scores: Tensor) -> Tensor:
        views = list(scores)
        return loss.SwaVLoss()(views[:2], views[2:], list(queue) if queued else None)

    same(ours, theirs)


def test_dinos_loss_is_lightlys() -> None:
    """With a centre that is not 0, which both move alike."""
    loss = pytest.importorskip("lightly.loss", reason="an oracle, and not installed")
    taught, centre = rows(4, 2, COUNT, WIDTH), rows(5, WIDTH)
    criterion = loss.DINOLoss(WIDTH, teacher_temp=1 / 16).double()  # which 32 bit hold
    criterion.center.copy_(centre)

    def ours(scores: Tensor) -> Tensor:
        return across_views(F.softmax((taught - centre) * 16, 2), scores / 0.1)

    same(ours, lambda scores: criterion(list(taught), list(scores)))
    moved = centre.lerp(taught.mean((0, 1)), 0.1)
    torch.testing.assert_close(criterion.center.flatten(), moved, rtol=1e-12, atol=0)


def test_a_share_of_the_images_has_its_part_of_the_loss() -> None:
    """The mean over two devices, of three images each, is the loss of all six."""
    parts = [across_views(TARGETS[:, s], LOGITS[:, s]) for s in (slice(0, 3), slice(3, 6))]
    assert float(sum(parts)) / 2 == pytest.approx(float(across_views(TARGETS, LOGITS)), rel=1e-12)


@pytest.mark.parametrize("method", FEW)
def test_the_step_has_the_loss_of_its_views(method: str, monkeypatch) -> None:
    """The log's first loss, from what network and teacher give: nothing else is compared."""
    task = task_of(method)
    seen: list[tuple[Tensor, Tensor]] = []
    plain = across_views

    def noted(targets: Tensor, logits: Tensor) -> Tensor:
        seen.append((targets, logits))
        return plain(targets, logits)

    monkeypatch.setattr(f"pretext.{method}.across_views", noted)
    values = task.train_step(images(side=36), step_of(0))
    ((targets, logits),) = seen
    assert targets.shape == (2, 4, 6)
    assert logits.shape == (3, 4, 6)
    assert not targets.requires_grad
    torch.testing.assert_close(targets.sum(2), torch.ones(2, 4))
    expected = numpy_across(targets.double().numpy(), logits.detach().double().numpy())
    assert float(values["loss"]) == pytest.approx(expected, rel=1e-5)


# ---- SwAV
def test_prototypes_are_of_unit_length_in_each_step_and_frozen_at_first() -> None:
    task, lengths = task_of("swav", frozen=1), []
    task.prototypes.register_forward_pre_hook(
        lambda layer, given: lengths.append(layer.weight.detach().norm(dim=1))
    )
    drawn = F.normalize(task.prototypes.weight.detach())
    task.train_step(images(side=36), step_of(0))
    assert torch.equal(task.prototypes.weight, drawn)
    task.train_step(images(side=36), step_of(1))
    assert not torch.allclose(task.prototypes.weight, drawn)
    task.train_step(images(side=36), step_of(2))
    torch.testing.assert_close(torch.stack(lengths), torch.ones(3, 6))


def test_codes_are_made_among_the_queue_once_it_is_full(monkeypatch) -> None:
    """8 images, 2 steps of 4: the third step makes codes of 12 rows, of each view by its own."""
    task, keys = task_of("swav", queue=8, queue_from=0), list[Tensor]()
    among, used = list[Tensor](), list[Tensor]()

    def noted(scores: Tensor, epsilon: float) -> Tensor:
        among.append(scores)
        used.append(task.prototypes.weight.detach().clone())
        return sinkhorn(scores, epsilon)

    monkeypatch.setattr("pretext.swav.sinkhorn", noted)
    for index in range(3):
        keys = [queue.keys.clone() for queue in task.queue]
        task.train_step(images(side=36), step_of(index))
    assert [len(scores) for scores in among] == [4, 4, 4, 4, 12, 12]
    for kept, scores, weights in zip(keys, among[4:], used[4:], strict=True):
        torch.testing.assert_close(scores[4:], kept @ weights.T)
    assert not torch.allclose(keys[0], keys[1])
    later = task_of("swav", queue=8, queue_from=3)
    among.clear()
    for index in range(4):
        later.train_step(images(side=36), step_of(index))
    assert [len(scores) for scores in among[::2]] == [4, 4, 4, 12]


def test_a_queue_that_holds_no_batch_is_refused(bench, tmp_path) -> None:
    words = ("pretrain", "swav", "--queue", 8, "--batch-size", 16, "--workspace", tmp_path)
    fails(bench(*words), 2, "does not hold a batch of 16")


# ---- DINO
def test_the_head_is_the_papers() -> None:
    """The last layer as weight normalisation of torch with lengths of 1."""
    config = DINOConfig(projector=(9, 9, 5), outputs=6)
    head = DINOHead(4, config)
    parts = [type(part).__name__ for part in head.layers]
    assert parts == ["Flatten", "Linear", "GELU", "Linear", "GELU", "Linear"]
    outputs = rows(6, 3, 5).float()
    theirs = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(5, 6, bias=False))
    weights: Any = theirs.parametrizations
    weights.weight.original1.data.copy_(head.last.weight)
    weights.weight.original0.data.fill_(1)
    expected = theirs(F.normalize(outputs))
    torch.testing.assert_close(cosines(outputs, head.last.weight), expected)
    normed = DINOHead(4, DINOConfig(projector=(9, 5), outputs=6, head_norm=True))
    assert [type(part).__name__ for part in normed.layers][2] == "BatchNorm1d"


def test_teacher_and_centre_follow_behind_the_update() -> None:
    """The centre is that of what the teacher gave; the teacher is what is saved."""
    task, taught = task_of("dino", momentum=0.75, momentum_end=0.75, lr=1.0), []
    assert exported(task) is task.teacher[0]
    start = [weight.clone() for weight in task.teacher.parameters()]
    task.teacher[1].register_forward_hook(lambda head, given, made: taught.append(made))
    task.train_step(images(side=36), step_of(0))
    torch.testing.assert_close(task.centre, 0.1 * taught[0].mean(0))
    learnt = [*task.encoder.parameters(), *task.head.parameters()]
    for own, was, its in zip(task.teacher.parameters(), start, learnt, strict=True):
        torch.testing.assert_close(own, 0.75 * was + 0.25 * its)


def test_the_courses_are_the_papers() -> None:
    """Temperature in a line, decay by half a cosine; the last layer is frozen, then not."""
    task = task_of(
        "dino", teacher_warmup=2, teacher_temperature_end=0.07, optimizer="adamw", frozen=1,
        weight_decay=0.04, weight_decay_end=0.4, clip=3.0,
    )  # fmt: skip
    found = [task.teacher_temperature(index) for index in range(4)]
    assert found == pytest.approx([0.04, 0.055, 0.07, 0.07])
    last = task.head.last.weight.detach().clone()
    for index in range(3):
        task.train_step(images(side=36), step_of(index))
        assert torch.equal(task.head.last.weight, last) == (index == 0)
        decays = [group["weight_decay"] for group in task.optimizer.param_groups]
        course = 0.4 - 0.36 * (math.cos(math.pi * index / 4) + 1) / 2
        assert decays == pytest.approx([course, 0.0])


# ---- both
def test_the_published_defaults() -> None:
    swav, dino = SwAVConfig(), DINOConfig()
    assert (swav.rate, swav.warmup, swav.frozen) == (pytest.approx(4.8), 3127, 312)
    assert (swav.small_size, swav.crop_split) == (96, 0.14)
    assert SwAVConfig(batch_size=256, steps=4_000_000).queue_from == 75_068
    assert (dino.rate, dino.warmup, dino.frozen) == (pytest.approx(0.002), 12_511, 1251)
    assert (dino.teacher_warmup, dino.small_size, dino.crop_split) == (37_534, 96, 0.4)


def test_lars_is_refused_for_transformers(bench, tmp_path) -> None:
    words = ("--arch", "timm:test_vit", "--image-size", 160, "--data", "scenes:train=2,test=2")
    made = bench("pretrain", "swav", *words, "--workers", 0, "--workspace", tmp_path)
    fails(made, 2, "--optimizer lars is for networks with batch normalisation")


@pytest.mark.parametrize(
    ("method", "more"),
    [("swav", {"queue": 8, "frozen": 3}), ("dino", {"frozen": 3, "optimizer": "sgd"})],
)
def test_a_stopped_run_ends_with_the_same_bits(method, more, tmp_path) -> None:
    """Stopped while weights are frozen, of which the optimiser has no memory yet."""
    config = catalogue.pretext(method).Config.model_validate(TOY | FEW[method] | more)
    assert_stopping_changes_nothing(method, config, tmp_path)


@pytest.mark.parametrize("method", FEW)
def test_it_trains_from_the_command_line_and_is_measured(bench, tmp_path, method) -> None:
    where = ("--data", "scenes:train=16,test=8", "--workers", 0, "--workspace", tmp_path)
    toy = ("--arch", "timm:test_vit", "--steps", 2, "--batch-size", 8, "--optimizer", "adamw")
    bench.ok("pretrain", method, "--recipe", "small", *toy, "--projector", 8, *where)
    assert f"| {method} " in bench.ok("knn", "--encoder", method, "--k", 5, *where).out
