"""MAE: the encoder sees the visible patches only, and the loss is that of the released formula."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.refusals import fails
from helpers.steps import images, step_of
from pretext.mae import MAEConfig, patches_of, places_of, reconstruction_loss
from ssl_bench.data.normalization import HALF
from ssl_bench.training.build import build_pretext

TOY = {
    "arch": "timm:vit_tiny_patch16_224", "image_size": 64, "steps": 60, "batch_size": 4,
    "decoder_depth": 1, "decoder_width": 32, "lr": 0.1,
}  # fmt: skip
SEEN = torch.tensor([[3, 0, 9, 14], [15, 1, 2, 8]])


def task_of(**settings: Any) -> Any:
    return build_pretext("mae", MAEConfig(**TOY | settings), HALF)[0]


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# ---- only visible tokens are seen
def test_a_hidden_patch_changes_nothing_and_has_no_gradient() -> None:
    """Neither of what the encoder gives nor of what the decoder guesses."""
    task, pixels = task_of().double().eval(), noise(2, 3, 64, 64).requires_grad_()
    order = torch.stack([torch.cat([row, rest_of(row)]) for row in SEEN])

    def run(images: Tensor) -> list[Tensor]:
        found = task.encoder(images, [task.layer, "pooled"], keep=SEEN)
        tokens, pooled = found[task.layer][..., 0].transpose(1, 2), found["pooled"].flatten(1)
        return [tokens, pooled, task.decoder(tokens, pooled, order)]

    for made in run(pixels):
        (gradient,) = torch.autograd.grad(made.square().sum(), pixels, retain_graph=True)
        seen = patches_of(gradient, 16).abs().sum(2) > 0
        assert torch.equal(seen.nonzero()[:, 1].view(2, 4), SEEN.sort(1).values)
    changed = pixels.detach().clone()
    changed[0, :, 0:16, 16:32] += 5  # patch 1, which the first image hides
    changed[1, :, 0:16, 0:16] += 5  # patch 0, which the second hides
    for one, other in zip(run(pixels), run(changed), strict=True):
        assert torch.equal(one, other)


def rest_of(seen: Tensor) -> Tensor:
    return torch.tensor([place for place in range(16) if place not in seen])


def test_a_quarter_is_seen_and_the_others_are_guessed(monkeypatch) -> None:
    """As the step does it: 4 of 16 patches, others in each image and in each step."""
    task, kept, asked = task_of(), [], []
    plain, decode = task.encoder.forward, task.decoder.forward

    def encoder(pixels: Tensor, layers: Any, keep: Tensor) -> Any:
        kept.append(keep)
        return plain(pixels, layers, keep)

    def decoder(tokens: Tensor, pooled: Tensor, order: Tensor) -> Tensor:
        asked.append(order)
        return decode(tokens, pooled, order)

    monkeypatch.setattr(task.encoder, "forward", encoder)
    monkeypatch.setattr(task.decoder, "forward", decoder)
    task.optimizers()
    for index in range(2):
        task.train_step(images(4), step_of(index, 4))
    assert all(keep.shape == (4, 4) for keep in kept)
    for keep, order in zip(kept, asked, strict=True):
        assert torch.equal(order[:, :4], keep)
        assert torch.equal(order.sort(1).values, torch.arange(16).expand(4, 16))
    rows = {tuple(sorted(row)) for keep in kept for row in keep.tolist()}
    assert len(rows) == 8


# ---- the loss
def numpy_loss(guessed: np.ndarray, truth: np.ndarray) -> float:
    errors = []
    for guess, patch in zip(guessed.reshape(-1, 12), truth.reshape(-1, 12), strict=True):
        normalised = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
        errors.append(np.square(guess - normalised).mean())
    return float(np.mean(errors))


def test_value_and_gradient_of_the_loss() -> None:
    guessed, truth = noise(2, 3, 12), 3 * noise(2, 3, 12).flip(0) + 1
    found = reconstruction_loss(guessed, truth)
    assert float(found) == pytest.approx(numpy_loss(guessed.numpy(), truth.numpy()), rel=1e-12)
    learning = guessed.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: reconstruction_loss(rows, truth), (learning,))


def test_patches_and_their_normalisation_are_lightlys() -> None:
    """Its pixels lie with channels last, ours with channels first."""
    utils = pytest.importorskip("lightly.models.utils", reason="an oracle, and not installed")
    pixels = noise(2, 3, 64, 64)
    theirs = utils.patchify(pixels, 16).view(2, 16, 16, 16, 3).permute(0, 1, 4, 2, 3).flatten(2)
    assert torch.equal(patches_of(pixels, 16), theirs)
    loss = reconstruction_loss(torch.zeros_like(theirs), theirs)
    expected = utils.normalize_mean_var(theirs).square().mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_patches_lie_row_by_row() -> None:
    pixels = torch.zeros(1, 3, 64, 64)
    pixels[:, :, 16:32, 48:] = 1  # second row, fourth column
    assert patches_of(pixels, 16)[0].mean(1).nonzero().flatten().tolist() == [7]


def test_places_are_sines_and_cosines_of_row_and_column() -> None:
    found = places_of(3, 32).double()
    assert len(found.unique(dim=0)) == 9
    pace = [10_000 ** (-i / 8) for i in range(8)]
    for place in range(9):
        row, column = divmod(place, 3)
        waves = [wave(p * at) for at in (column, row) for wave in (np.sin, np.cos) for p in pace]
        np.testing.assert_allclose(found[place].numpy(), waves, atol=1e-6)


# ---- settings
def test_the_published_defaults() -> None:
    config = MAEConfig()
    assert config.warmup == 12_511  # 40 of 800 epochs
    (adam,) = task_of(batch_size=512, lr=1.5e-4).optimizers()
    groups = [(group["lr"], group["weight_decay"], group["betas"]) for group in adam.param_groups]
    assert groups == [(3e-4, 0.05, (0.9, 0.95)), (3e-4, 0.0, (0.9, 0.95))]


@pytest.mark.parametrize(
    ("arch", "size", "line"),
    [
        ("alexnet", 64, "mae takes vision transformers of timm"),
        ("torchvision:resnet18", 64, "such as timm:vit_small_patch16_224, not torchvision:resn"),
        ("timm:vit_tiny_patch16_224", 72, "an --image-size that patches of 16 px fill"),
    ],
)
def test_what_makes_no_sense_is_refused(bench, tmp_path, arch, size, line) -> None:
    words = ("--arch", arch, "--image-size", size, "--data", "scenes:train=2,test=2")
    fails(bench("pretrain", "mae", *words, "--workers", 0, "--workspace", tmp_path), 2, line)


def test_it_trains_from_the_command_line_and_is_measured(bench, tmp_path) -> None:
    where = ("--data", "scenes:train=16,test=8", "--workers", 0, "--workspace", tmp_path)
    toy = ("--arch", "timm:test_vit", "--warmup", 1, "--steps", 12, "--batch-size", 8)
    made = bench.ok("pretrain", "mae", "--recipe", "small", *toy, "--lr", 0.03, *where)
    assert "loss" in made.out
    assert "| mae " in bench.ok("knn", "--encoder", "mae", "--k", 5, *where).out
