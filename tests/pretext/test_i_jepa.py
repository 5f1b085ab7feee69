"""I-JEPA: blocks that share no patch, features normalised and compared as by NumPy, the teacher."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.interrupted import assert_stopping_changes_nothing
from helpers.refusals import fails
from helpers.steps import drawn, images, step_of
from pretext import i_jepa
from pretext.i_jepa import IJEPAConfig, block_sizes, blocks, feature_loss, masks, normalized
from pretext.mae import patches_of
from ssl_bench.counter import Randomness
from ssl_bench.data.normalization import HALF
from ssl_bench.training.build import build_pretext, exported

TOY: dict[str, Any] = {
    "recipe": "small", "arch": "timm:test_vit", "batch_size": 4, "steps": 4, "warmup": 0,
    "predictor_depth": 1, "predictor_width": 32,
}  # fmt: skip


def task_of(**settings: Any) -> Any:
    config = IJEPAConfig.model_validate(TOY | settings)
    task: Any = build_pretext("i-jepa", config, HALF)[0].train()
    task.optimizers()
    return task


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def grid(places: Tensor, rows: int) -> Tensor:
    """int64 (…, M) -> bool (…, rows, rows)."""
    empty = torch.zeros(*places.shape[:-1], rows**2, dtype=torch.bool)
    return empty.scatter(-1, places, True).unflatten(-1, (rows, rows))


def extent(filled: Tensor) -> list[tuple[int, int]]:
    """Height and width of the smallest rectangle around what is filled, of (B, rows, rows)."""
    spans = []
    for dim in (2, 1):
        some = filled.any(dim)
        last = some.shape[1] - some.flip(1).int().argmax(1)
        spans.append((last - some.int().argmax(1)).tolist())
    return list(zip(*spans, strict=True))


# ---- blocks
@pytest.mark.parametrize(("rows", "count"), [(4, 8), (8, 256), (14, 64)])
def test_contexts_and_targets_share_no_patch_and_are_of_one_size_each(rows, count) -> None:
    for step in range(10):
        keep, targets = masks(drawn(step, count), rows, count)
        seen, guessed = grid(keep, rows), grid(targets, rows)
        assert not (seen & guessed.any(1)).any()
        assert (seen.sum((1, 2)) == keep.shape[1]).all()  # no patch twice
        assert (guessed.sum((2, 3)) == targets.shape[2]).all()
        assert keep.shape[1] > 0


@pytest.mark.parametrize("rows", [8, 14, 16])
def test_sizes_are_within_the_papers_scales_but_for_whole_patches(rows) -> None:
    """Sides before rounding: of 0.15 to 0.2 of the patches, 0.75 to 1.5 as high as wide."""
    found = [block_sizes(drawn(step, 1), rows) for step in range(200)]
    for sizes in found:
        least, most = (
            [side + d for side in (sizes.height, sizes.width)] for d in (-0.5, 0.5)
        )  # fmt: skip
        assert math.prod(least) <= 0.2 * rows**2
        assert math.prod(most) >= 0.15 * rows**2
        assert least[0] / most[1] <= 1.5
        assert most[0] / least[1] >= 0.75
        assert math.sqrt(0.85) * rows - 0.5 <= sizes.side <= rows
    assert len(set(found)) > 5
    assert {sizes.side for sizes in found} == set(range(round(rows * 0.85**0.5), rows + 1))


def test_targets_are_rectangles_all_over_the_grid_and_a_context_is_a_square_without_them() -> None:
    rows, places, squares = 8, torch.zeros(8, 8), set[int]()
    for step in range(6):
        sizes = block_sizes(drawn(step, 1), rows)
        contexts, targets = blocks(drawn(step, 64), rows, sizes)
        filled = grid(targets, rows)
        assert set(extent(filled.flatten(0, 1))) == {(sizes.height, sizes.width)}
        places += filled.sum((0, 1))
        corners = list(product(range(rows - sizes.side + 1), repeat=2))
        for context, hidden in zip(contexts, filled.any(1), strict=True):
            candidates = [square(top, left, sizes.side, rows) for top, left in corners]
            found = [torch.equal(context, (one & ~hidden).flatten()) for one in candidates]
            assert any(found)
            squares.add(found.index(True))
    assert places.min() > 0
    assert len(squares) > 1


def square(top: int, left: int, side: int, rows: int) -> Tensor:
    filled = torch.zeros(rows, rows, dtype=torch.bool)
    filled[top : top + side, left : left + side] = True
    return filled


def test_a_context_that_is_too_small_is_drawn_again(monkeypatch) -> None:
    def smallest() -> int:
        sizes = [block_sizes(drawn(step, 1), 8) for step in range(12)]
        return min(
            int(blocks(drawn(step, 256), 8, size)[0].sum(1).min())
            for step, size in enumerate(sizes)
        )

    assert smallest() >= i_jepa.LEAST
    monkeypatch.setattr(i_jepa, "TRIES", 1)
    assert smallest() < i_jepa.LEAST


def test_a_share_of_the_batch_has_its_rows_of_the_whole() -> None:
    """Trimmed to the smallest context of all: of 64 images on two devices."""
    whole = masks(drawn(3, 64), 8, 64)
    for part in torch.arange(64).split(32):
        for one, other in zip(masks(Randomness(0, 3, part), 8, 64), whole, strict=True):
            assert torch.equal(one, other[part])


# ---- what is seen
def test_a_hidden_patch_changes_no_bit_and_has_no_gradient() -> None:
    """Neither of what the encoder gives nor of what the predictor guesses."""
    task, pixels = task_of().double().eval(), noise(4, 3, 64, 64).requires_grad_()
    keep, targets = masks(drawn(0, 4), 4, 4)
    order = torch.cat([keep, targets[:, 0]], 1)

    def run(images: Tensor) -> list[Tensor]:
        found = task.encoder(images, [task.layer, "pooled"], keep)
        tokens, pooled = i_jepa.tokens_of(found[task.layer]), found["pooled"].flatten(1)
        return [tokens, pooled, task.predictor(tokens, pooled, order)]

    seen = grid(keep, 4)
    for made in run(pixels):
        (gradient,) = torch.autograd.grad(made.square().sum(), pixels, retain_graph=True)
        reached = patches_of(gradient, 16).abs().sum(2) > 0
        assert torch.equal(reached, seen.flatten(1))
    hidden = ~seen.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None]
    changed = pixels.detach() + 5 * hidden
    for one, other in zip(run(pixels), run(changed), strict=True):
        assert torch.equal(one, other)


def test_the_step_guesses_the_teachers_features_of_each_target(monkeypatch) -> None:
    """The log's loss, by NumPy, from what teacher and predictor gave; the teacher hides nothing."""
    task, noted = task_of(), dict[str, Any]()
    task.teacher[0].register_forward_hook(lambda _, given, made: noted.update(all=given, maps=made))
    task.encoder.register_forward_hook(lambda _, given, made: noted.update(keep=given[2]))
    task.predictor.register_forward_hook(
        lambda _, given, made: noted.update(tokens=given[0], order=given[2], guessed=made)
    )
    values = task.train_step(images(), step_of(0))
    assert len(noted["all"]) == 2  # pixels and layers
    keep, targets = masks(drawn(0, 4), 4, 4)
    assert torch.equal(noted["keep"], keep)
    maps = noted["maps"][task.layer].double().numpy()  # (4, C, 4, 4)
    guessed, order = noted["guessed"].detach().double().numpy(), noted["order"]
    assert guessed.shape == (16, targets.shape[2], maps.shape[1])
    errors = []
    for row in range(16):
        image, block = divmod(row, 4)
        assert order[row].tolist() == [*keep[image].tolist(), *targets[image, block].tolist()]
        assert torch.equal(noted["tokens"][row], noted["tokens"][4 * image])
        for guess, place in zip(guessed[row], targets[image, block].tolist(), strict=True):
            taught = maps[image, :, place // 4, place % 4]
            errors.append(numpy_loss(guess, numpy_norm(taught)))
    assert float(values["loss"]) == pytest.approx(np.mean(errors), rel=1e-5)


# ---- the loss
def numpy_norm(features: np.ndarray) -> np.ndarray:
    return (features - features.mean()) / np.sqrt(features.var() + 1e-5)


def numpy_loss(guessed: np.ndarray, taught: np.ndarray) -> float:
    distances = np.abs(guessed - taught).ravel()
    return float(np.mean([d - 0.5 if d > 1 else d * d / 2 for d in distances]))


def test_value_and_gradient_of_the_loss() -> None:
    maps, guessed = 3 * noise(2, 7, 2, 3) + 1, 1.5 * noise(2, 6, 7)
    taught = normalized(maps)
    for image in range(2):
        for place in range(6):
            expected = numpy_norm(maps[image, :, place // 3, place % 3].numpy())
            np.testing.assert_allclose(taught[image, place].numpy(), expected, rtol=1e-12)
    found = feature_loss(guessed, taught)
    expected = numpy_loss(guessed.numpy(), taught.numpy())
    assert float(found) == pytest.approx(expected, rel=1e-12)
    learning = guessed.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: feature_loss(rows, taught), (learning,))


# ---- teacher and courses
def test_the_teacher_follows_in_a_line_and_is_what_is_saved() -> None:
    task = task_of(momentum=0.5, momentum_end=1.0, lr=1.0, weight_decay=0.04)
    assert exported(task) is task.teacher[0]
    for index in range(3):
        start = [weight.clone() for weight in task.teacher.parameters()]
        task.train_step(images(), step_of(index))
        momentum = 0.5 + 0.5 * index / 4
        for own, was, its in zip(
            task.teacher.parameters(), start, task.encoder.parameters(), strict=True
        ):
            torch.testing.assert_close(own, momentum * was + (1 - momentum) * its)
        decays = [group["weight_decay"] for group in task.adam.param_groups]
        course = 0.4 - 0.36 * (math.cos(math.pi * index / 4) + 1) / 2
        assert decays == pytest.approx([course, 0.0])


def test_the_published_defaults() -> None:
    config = IJEPAConfig()
    assert config.warmup == 25_000  # 40 of 300 epochs
    assert config.lr * config.batch_size / 256 == pytest.approx(1e-3)
    (adam,) = task_of(batch_size=512, lr=1.25e-4).optimizers()
    groups = [(group["lr"], group["weight_decay"]) for group in adam.param_groups]
    assert groups == [(2.5e-4, 0.04), (2.5e-4, 0.0)]


# ---- runs
@pytest.mark.parametrize(
    ("arch", "size", "line"),
    [
        ("torchvision:resnet18", 64, "i-jepa takes vision transformers of timm"),
        ("timm:vit_tiny_patch16_224", 72, "an --image-size that patches of 16 px fill"),
    ],
)
def test_what_makes_no_sense_is_refused(bench, tmp_path, arch, size, line) -> None:
    words = ("--arch", arch, "--image-size", size, "--data", "scenes:train=2,test=2")
    fails(bench("pretrain", "i-jepa", *words, "--workers", 0, "--workspace", tmp_path), 2, line)


def test_a_stopped_run_ends_with_the_same_bits(tmp_path) -> None:
    assert_stopping_changes_nothing("i-jepa", IJEPAConfig.model_validate(TOY), tmp_path)


def test_it_trains_from_the_command_line_and_is_measured(bench, tmp_path) -> None:
    where = ("--data", "scenes:train=16,test=8", "--workers", 0, "--workspace", tmp_path)
    toy = ("--arch", "timm:test_vit", "--warmup", 1, "--steps", 4, "--batch-size", 8)
    made = bench.ok("pretrain", "i-jepa", "--recipe", "small", *toy, *where)
    assert "loss" in made.out
    assert "| i-jepa " in bench.ok("knn", "--encoder", "i-jepa", "--k", 5, *where).out
