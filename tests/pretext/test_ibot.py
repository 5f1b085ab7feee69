"""iBOT: blocks as laid one by one, its loss by NumPy and lightly, what is hidden, the teacher."""

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.interrupted import assert_stopping_changes_nothing
from helpers.refusals import fails
from helpers.steps import drawn, images, step_of
from pretext.ibot import IBOTConfig, block_masks, hidden_loss, shares
from ssl_bench.counter import Randomness
from ssl_bench.data.normalization import HALF
from ssl_bench.training.build import build_pretext, exported

WIDTH = 6
TOY: dict[str, Any] = {
    "recipe": "small", "arch": "timm:test_vit", "batch_size": 4, "steps": 4, "warmup": 0,
    "projector": (8,), "outputs": WIDTH, "small_crops": 1, "frozen": 0,
}  # fmt: skip


def task_of(**settings: Any) -> Any:
    config = IBOTConfig.model_validate(TOY | settings)
    task: Any = build_pretext("ibot", config, HALF)[0].train()
    task.optimizers()
    return task


def noise(seed: int, *shape: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draw, dtype=torch.float64)


# ---- what is hidden
def laid(rows: int, share: float, draw: random.Random) -> int:
    """Patches hidden in one view, block by block, until ten in a row do not fit."""
    grid, most, failed = np.zeros((rows, rows), bool), share * rows**2, 0
    while grid.sum() < most and failed < 10:
        area = draw.uniform((rows // 3) ** 2, most - grid.sum())
        aspect = math.exp(draw.uniform(math.log(0.3), -math.log(0.3)))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        failed += 1
        if height < rows and width < rows:
            top, left = draw.randint(0, rows - height), draw.randint(0, rows - width)
            block = grid[top : top + height, left : left + width]
            if 0 < (~block).sum() <= most - grid.sum():
                block[:] = True
                failed = 0
    return int(grid.sum())


@pytest.mark.parametrize(("rows", "share"), [(4, 0.3), (8, 0.1), (8, 0.5), (14, 0.3), (16, 0.5)])
def test_as_much_is_hidden_as_where_blocks_are_laid_one_by_one(rows: int, share: float) -> None:
    draw = random.Random(0)
    one_by_one = np.array([laid(rows, share, draw) for _ in range(1000)])
    found = block_masks(drawn(0, 500), rows, torch.full((500, 2), share)).sum(2).flatten().numpy()
    assert found.max() <= share * rows**2
    error = math.hypot(one_by_one.std(), found.std()) / 1000**0.5
    assert abs(one_by_one.mean() - found.mean()) < 4 * error + 0.01
    assert found.std() == pytest.approx(one_by_one.std(), rel=0.3, abs=0.1)


def test_blocks_are_anywhere_of_either_stretch_and_other_in_each_view() -> None:
    masks = block_masks(drawn(0, 400), 8, torch.full((400, 2), 0.1)).unflatten(2, (8, 8))
    assert masks.flatten(0, 1).any(0).all()
    high, wide = (masks.any(dim).sum(2).flatten() for dim in (3, 2))
    assert 0.4 < float((high > wide).sum() / (high != wide).sum()) < 0.6
    assert float((masks[:, 0] != masks[:, 1]).flatten(1).any(1).float().mean()) > 0.9


def test_half_of_the_large_views_hide_a_tenth_to_a_half() -> None:
    found = shares(drawn(0, 2000), IBOTConfig())
    some = found[found > 0]
    assert float((found > 0).float().mean()) == pytest.approx(0.5, abs=0.04)
    assert 0.1 <= float(some.min()) < 0.105
    assert 0.495 < float(some.max()) <= 0.5
    assert float(some.mean()) == pytest.approx(0.3, abs=0.01)


def test_a_share_of_the_batch_has_its_rows_of_the_whole() -> None:
    whole = block_masks(drawn(3, 32), 8, shares(drawn(3, 32), IBOTConfig()))
    for part in torch.arange(32).split(16):
        random = Randomness(0, 3, part)
        assert torch.equal(block_masks(random, 8, shares(random, IBOTConfig())), whole[part])


# ---- the loss
# Two, none, four: lightly divides by these in 32 bit.
HIDDEN = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()
TARGETS, LOGITS = noise(0, 3, 4, WIDTH).softmax(2), 4 * noise(1, 3, 4, WIDTH)


def numpy_loss(targets: np.ndarray, logits: np.ndarray, hidden: np.ndarray) -> float:
    views = []
    for target, guesses, which in zip(targets, logits, hidden, strict=True):
        found = [
            -told @ (guess - np.log(np.exp(guess).sum()))
            for told, guess, one in zip(target, guesses, which, strict=True)
            if one
        ]
        views.append(np.mean(found) if found else 0.0)
    return float(np.mean(views))


def test_value_and_gradient() -> None:
    expected = numpy_loss(*(each.numpy() for each in (TARGETS, LOGITS, HIDDEN)))
    assert float(hidden_loss(TARGETS, LOGITS, HIDDEN)) == pytest.approx(expected, rel=1e-12)
    learning = LOGITS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: hidden_loss(TARGETS, logits, HIDDEN), learning)


def test_it_is_lightlys() -> None:
    loss = pytest.importorskip("lightly.loss", reason="an oracle, and not installed")
    criterion = loss.IBOTPatchLoss(WIDTH, teacher_temp=1 / 16).double()  # which 32 bit hold
    centre, taught = noise(2, WIDTH), noise(3, 3, 4, WIDTH)
    criterion.center.center.copy_(centre)
    learning = [LOGITS.clone().requires_grad_() for _ in range(2)]
    theirs = criterion(taught[HIDDEN], learning[0][HIDDEN], HIDDEN.unflatten(1, (2, 2)))
    ours = hidden_loss(((taught - centre) * 16).softmax(2), learning[1] / 0.1, HIDDEN)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    pairs = zip((theirs, ours), learning, strict=True)
    gradients = [torch.autograd.grad(*pair)[0] for pair in pairs]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-15)


# ---- the step
def entropy(targets: np.ndarray, logits: np.ndarray) -> np.ndarray:
    return -(targets * (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))).sum(-1)


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_the_step_by_numpy_from_what_the_heads_gave() -> None:
    """Of two large views and a small one; both centres are not 0, and move to the means."""
    task = task_of(whole=0.4)
    task.centre.copy_(noise(4, WIDTH) / 50)
    task.patch_centre.copy_(noise(5, WIDTH) / 50)
    centres = [each.double().numpy().copy() for each in (task.centre, task.patch_centre)]
    noted: dict[str, list[np.ndarray]] = {"student": [], "teacher": []}
    for name, head in (("student", task.head), ("teacher", task.teacher[1])):
        keep = noted[name]
        head.register_forward_hook(
            lambda _, given, made, keep=keep: keep.append(made.detach().double().numpy())
        )
    values = task.train_step(images(), step_of(0))
    outputs, guesses = noted["student"]
    taught, truths = noted["teacher"]
    assert outputs.shape == (12, WIDTH)
    assert taught.shape == (8, WIDTH)
    assert guesses.shape == truths.shape == (8 * 16, WIDTH)
    of_views = softmax((taught - centres[0]) / 0.04).reshape(2, 4, WIDTH)
    views = outputs.reshape(3, 4, WIDTH) / 0.1
    pairs = [entropy(of_views[t], views[v]) for t in range(2) for v in range(3) if t != v]
    masks = block_masks(drawn(0, 4), 4, shares(drawn(0, 4), task.config))
    hidden = torch.cat([masks[:, 0], masks[:, 1]]).numpy()
    assert 0 < hidden.any(1).sum() < 8
    of_patches = softmax((truths - centres[1]) / 0.04).reshape(8, 16, WIDTH)
    filled = numpy_loss(of_patches, guesses.reshape(8, 16, WIDTH) / 0.1, hidden)
    assert float(values["hidden"]) == pytest.approx(filled, rel=1e-5)
    assert float(values["loss"]) == pytest.approx(filled + np.mean(pairs), rel=1e-5)
    for centre, was, rows in zip(
        (task.centre, task.patch_centre), centres, (taught, truths), strict=True
    ):
        moved = 0.9 * was + 0.1 * rows.mean(0)
        np.testing.assert_allclose(centre.numpy(), moved, rtol=1e-4, atol=1e-7)


def test_the_student_does_not_see_what_is_hidden_and_the_teacher_does() -> None:
    """Gradients of the patches' outputs by the pixels: none of hidden ones in the student's."""
    task, reached = task_of(whole=0.0).double(), dict[str, Tensor]()
    masks = block_masks(drawn(0, 4), 4, shares(drawn(0, 4), task.config))
    hidden = torch.cat([masks[:, 0], masks[:, 1]])
    pixels = noise(6, 8, 3, 64, 64)
    token = task.token.weight[0]
    for name in ("student", "teacher"):
        seen = pixels.clone().requires_grad_()
        if name == "student":
            with task.encoder.hiding(hidden, token):
                whole, tokens = task.seen(task.encoder, task.norm, seen)
        else:
            whole, tokens = task.seen(task.teacher[0], task.teacher[2], seen)
        total = whole.square().sum() + tokens.pow(3).sum()
        (gradient,) = torch.autograd.grad(total, seen)
        cells = gradient.abs().unfold(2, 16, 16).unfold(3, 16, 16).sum((1, 4, 5)).flatten(1)
        reached[name] = cells > 0
    assert torch.equal(reached["student"], ~hidden)
    assert reached["teacher"].all()


def test_the_teacher_follows_encoder_head_and_norm_and_is_what_is_saved() -> None:
    task = task_of(momentum=0.5, momentum_end=1.0, lr=1.0)
    assert exported(task) is task.teacher[0]
    for index in range(2):
        start = [weight.clone() for weight in task.teacher.parameters()]
        task.train_step(images(), step_of(index))
        momentum = 1 - 0.5 * (math.cos(math.pi * index / 4) + 1) / 2
        learnt = [w for part in (task.encoder, task.head, task.norm) for w in part.parameters()]
        for own, was, its in zip(task.teacher.parameters(), start, learnt, strict=True):
            torch.testing.assert_close(own, momentum * was + (1 - momentum) * its)
    assert task.token.weight.abs().sum() > 0  # it began at 0, and learns


def test_the_student_learns_what_a_teacher_that_stays_says_of_hidden_patches() -> None:
    """One batch again and again: cross-entropy falls towards the entropy of what is told."""
    stays = {"momentum": 1.0, "momentum_end": 1.0, "centre_momentum": 0.999, "outputs": 16}
    task = task_of(**stays, lr=0.1, weight_decay=0.0, weight_decay_end=0.0)
    told: list[Tensor] = []
    plain = task.sharpened
    task.sharpened = lambda *given: told.append(plain(*given)) or told[-1]
    found = [float(task.train_step(images(), step_of(0))["hidden"]) for _ in range(40)]
    masks = block_masks(drawn(0, 4), 4, shares(drawn(0, 4), task.config))
    hidden = torch.cat([masks[:, 0], masks[:, 1]])
    least = float(
        hidden_loss(told[-1].unflatten(0, (8, -1)), told[-1].log().unflatten(0, (8, -1)), hidden)
    )
    assert 0 < least < found[-1]
    assert found[-1] - least < 0.3 * (found[0] - least), found


def test_the_published_defaults() -> None:
    config = IBOTConfig()
    assert (config.arch, config.batch_size, config.steps) == (
        "timm:vit_small_patch16_224", 1024, 1_000_800,
    )  # fmt: skip
    assert config.teacher_warmup == 30 * 1_281_167 // 1024
    assert config.frozen == 1_281_167 // 1024
    assert config.rate == pytest.approx(2e-3)


# ---- runs
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--arch", "torchvision:resnet18"), "ibot takes vision transformers of timm"),
        (
            ("--arch", "timm:vit_tiny_patch16_224", "--image-size", 72),
            "--image-size that patches of 16 px",
        ),
        (("--arch", "timm:test_vit", "--masked", 0.1), "less or plus --masked-spread"),
        (("--arch", "timm:test_vit", "--masked", 0.9), "less or plus --masked-spread"),
    ],
)
def test_what_makes_no_sense_is_refused(bench, tmp_path, words, line) -> None:
    where = ("--data", "scenes:train=2,test=2", "--workers", 0, "--workspace", tmp_path)
    fails(bench("pretrain", "ibot", "--recipe", "small", *words, *where), 2, line)


def test_a_stopped_run_ends_with_the_same_bits(tmp_path) -> None:
    assert_stopping_changes_nothing("ibot", IBOTConfig.model_validate(TOY), tmp_path)


def test_it_trains_without_small_views_and_is_measured(bench, tmp_path) -> None:
    where = ("--data", "scenes:train=16,test=8", "--workers", 0, "--workspace", tmp_path)
    toy = ("--arch", "timm:test_vit", "--warmup", 1, "--steps", 4, "--batch-size", 8)
    few = ("--outputs", 8, "--projector", "8", "--small-crops", 0)
    assert "hidden" in bench.ok("pretrain", "ibot", "--recipe", "small", *toy, *few, *where).out
    assert "| ibot " in bench.ok("knn", "--encoder", "ibot", "--k", 5, *where).out
