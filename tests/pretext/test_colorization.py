"""Colorization and split-brain beside their papers: Lab, bins, the loss, halves that never meet."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab
from torch import nn
from torch.nn import functional as F

from helpers.inpainting import NORM, inputs_of, outputs_of, photos, stepped
from helpers.interrupted import assert_stopping_changes_nothing
from helpers.refusals import SCENES, fails
from pretext.colorization import class_weights, soft_cross_entropy, upsampled
from pretext.split_brain import LUMA
from ssl_bench import catalogue
from ssl_bench.counter import Randomness
from ssl_bench.training.augment import random_crop_flip
from ssl_bench.training.build import build_pretext
from ssl_bench.training.lab import ab_bins, by_place, lightness_levels, rgb_to_lab, soft_bins

METHODS = ["colorization", "split-brain"]
TOY: dict[str, Any] = {"arch": "timm:test_resnet", "image_size": 64, "hidden": 8}
CPU = torch.device("cpu")


def task_of(method: str, **settings: Any) -> Any:
    config = catalogue.pretext(method).Config.model_validate({**TOY, **settings})
    return build_pretext(method, config, NORM)[0].train()


def drawn(*shape: int, scale: float = 1.0) -> torch.Tensor:
    """float64, uniform in [0, scale)."""
    return scale * torch.rand(*shape, generator=torch.Generator().manual_seed(1)).double()


# ---- Lab and its bins
def test_lab_is_that_of_scikit_image():
    """Which rounds the constants of Lab's line near black; beyond it nothing differs."""
    pixels = drawn(2, 3, 40, 40)
    pixels[0, :, :8] *= 0.01
    theirs = torch.from_numpy(rgb2lab(pixels.permute(0, 2, 3, 1).numpy())).permute(0, 3, 1, 2)
    found = rgb_to_lab(pixels)
    torch.testing.assert_close(found, theirs, rtol=0, atol=3e-4)
    bright = (pixels > 0.1).all(1, keepdim=True).expand_as(found)
    torch.testing.assert_close(found[bright], theirs[bright], rtol=0, atol=1e-9)
    torch.testing.assert_close(rgb_to_lab(pixels.float()).double(), found, rtol=0, atol=2e-4)


def test_there_are_313_bins_from_row_to_row():
    """The first and the last of the paper's file, and nothing that sRGB shows is far from one."""
    bins = ab_bins(CPU)
    assert bins.shape == (313, 2)
    assert bins[:6].tolist() == [[-90, b] for b in (50, 60, 70, 80, 90)] + [[-80, 20]]
    assert bins[-6:].tolist() == [[100, b] for b in range(-50, 10, 10)]
    assert torch.equal(bins, bins[np.lexsort((bins[:, 1], bins[:, 0]))])
    shown = by_place(rgb_to_lab(drawn(1, 3, 100, 100)))[:, 1:]
    assert float((shown[:, None] - bins).abs().amax(2).amin(1).max()) <= 5


def test_soft_bins_by_brute_force():
    """Of 200 colours, one by one: the five nearest of all 313, Gaussian weights, the sum 1."""
    colours, bins = drawn(200, 2, scale=180) - 90, ab_bins(CPU).double().numpy()
    places, shares = soft_bins(colours)
    for colour, where, share in zip(colours.numpy(), places.numpy(), shares.numpy(), strict=True):
        distances = np.array([np.hypot(*(colour - one)) for one in bins])
        expected = np.argsort(distances)[:5]
        assert where.tolist() == expected.tolist()
        weights = np.exp(-(distances[expected] ** 2) / (2 * 5**2))
        np.testing.assert_allclose(share, weights / weights.sum(), rtol=1e-9)


def test_levels_of_lightness():
    given = torch.tensor([0, 0.99, 1, 54.3, 99.5, 100])
    assert lightness_levels(given).tolist() == [0, 0, 1, 54, 99, 99]


# ---- the loss
def test_rare_colours_weigh_more_by_the_papers_formula():
    counts = torch.randint(50, (313,), generator=torch.Generator().manual_seed(0)) ** 2
    bins, count = ab_bins(CPU).double().numpy(), counts.double().numpy()
    seen = np.zeros(313)
    for bin_, many in zip(bins, count, strict=True):  # each bin's count is spread over all bins
        kernel = np.exp(-np.square(bins - bin_).sum(1) / (2 * 5**2))
        seen += many * kernel / kernel.sum()
    seen /= seen.sum()
    weights = 1 / (0.5 * seen + 0.5 / 313)
    weights /= (seen * weights).sum()
    np.testing.assert_allclose(class_weights(counts), weights, rtol=1e-5)
    assert class_weights(torch.ones(313, dtype=torch.int64)).min() > 0.9


def test_value_and_gradient_of_the_loss():
    """Place by place in NumPy; the second image is grey and has no say but in the mean."""
    logits, weights = 4 * drawn(2, 313, 3, 3), drawn(313, scale=2)
    ab = 120 * drawn(2, 2, 3, 3) - 60
    ab[1] = ab[1] / 15
    losses = np.zeros((2, 3, 3))
    places, shares = soft_bins(by_place(ab))
    guessed = by_place(torch.softmax(logits, 1)).numpy()
    for place in range(9):
        chances = guessed[place][places[place]]
        weight = float(weights[places[place, 0]])
        losses.flat[place] = -weight * float(shares[place].numpy() @ np.log(chances))
    assert float(soft_cross_entropy(logits, ab, weights)) == pytest.approx(losses.mean(), rel=1e-9)
    asking = logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda rows: soft_cross_entropy(rows, ab, weights), asking, fast_mode=True
    )


# ---- colorization
def test_a_step_shows_lightness_and_asks_for_every_eighth_colour():
    task, images = task_of("colorization"), photos(size=72)
    task.weights.copy_(torch.linspace(0.5, 2, 313))
    seen, said = inputs_of(task.encoder), outputs_of(task.head)
    found = stepped(task, images)
    crops = random_crop_flip(images, 64, Randomness(0, 0, torch.arange(4)))
    lab = rgb2lab(crops.permute(0, 2, 3, 1).numpy() / 255)
    mean, std = np.array(NORM.mean), np.array(NORM.std)
    expected = (np.repeat(lab[..., :1], 3, 3) / 100 - mean) / std
    np.testing.assert_allclose(seen[0].permute(0, 2, 3, 1), expected, atol=1e-4)
    ab = torch.from_numpy(lab[:, 4::8, 4::8, 1:]).permute(0, 3, 1, 2)
    logits = F.interpolate(said[0], (8, 8), mode="bilinear").double()
    loss = soft_cross_entropy(logits, ab, torch.linspace(0.5, 2, 313).double())
    assert float(found["loss"]) == pytest.approx(float(loss), rel=1e-4)


class Red:
    """300 images of one colour."""

    def __len__(self) -> int:
        return 300

    def batch(self, which: np.ndarray) -> dict[str, torch.Tensor]:
        pure = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
        return {"images": pure.expand(len(which), 3, 32, 32)}


def test_colours_are_counted_once_before_the_first_step():
    """Red's bin (a 80.1, b 67.2) then weighs least."""
    task = task_of("colorization")
    task.between(Red(), 0)
    counted = task.weights.clone()
    assert ab_bins(CPU)[counted.argmin()].tolist() == [80, 70]
    task.weights.fill_(1)
    task.between(Red(), 1)
    assert task.weights.eq(1).all()


@pytest.mark.parametrize(("arch", "layer"), [("alexnet", "conv5"), ("timm:test_resnet", "layer4")])
def test_the_head_stands_on_the_last_learnt_map(arch, layer):
    task = task_of("colorization", arch=arch, width=0.1 if arch == "alexnet" else 1)
    assert task.layer == layer
    kernels = [tuple(w.shape[2:]) for w in task.head.parameters() if w.ndim == 4]
    assert kernels == [(6, 6) if arch == "alexnet" else (1, 1), (1, 1), (1, 1)]
    maps = torch.randn(2, *task.encoder.shape(layer, 64))
    assert task.head(maps).shape == (2, 313, *maps.shape[2:])
    assert upsampled(task.head(maps), 8).shape == (2, 313, 8, 8)


@pytest.mark.parametrize("arch", ["alexnet", "timm:test_resnet"])
@pytest.mark.parametrize("side", range(1, 9))
def test_the_head_is_that_of_plain_convolutions(arch, side):
    """On maps of any size: weights that only meet the padding stay out, 1×1 layers are products."""
    ours: Any = task_of("colorization", arch=arch, width=0.1 if arch == "alexnet" else 1).head
    ours.double()
    plain = deepcopy(ours)
    for layer in plain:
        if isinstance(layer, nn.Conv2d):
            layer.__class__ = nn.Conv2d  # the same weights, padding and dilation
    channels = ours[0].in_channels
    for shape in (2, channels, side, side), (2, channels, side, max(1, side - 2)):
        maps = drawn(*shape).requires_grad_()
        outs = [head(maps) for head in (ours, plain)]
        grads = [
            torch.autograd.grad(out.square().sum(), (maps, *head.parameters()))
            for out, head in zip(outs, (ours, plain), strict=True)
        ]
        for found, expected in zip((outs[0], *grads[0]), (outs[1], *grads[1]), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


# ---- split-brain
@pytest.mark.parametrize(
    ("arch", "halved"), [("alexnet", False), ("timm:test_resnet", True), ("dcgan", False)]
)
def test_what_one_half_sees_changes_nothing_in_the_other(arch, halved):
    """After a step, in 32 bit or with bf16, on ordinary images; both halves have learnt."""
    ours = {"width": 0.1, "init": "fan-in", "image_size": 128}
    small = {} if ":" in arch else ours
    task = task_of("split-brain", arch=arch, lr=1e-3, **small)
    before = [weight.clone() for weight in task.encoder.parameters()]
    with torch.autocast("cpu", torch.bfloat16, enabled=halved):
        stepped(task, photos())
    assert any(
        not torch.equal(a, b) for a, b in zip(before, task.encoder.parameters(), strict=True)
    )
    colours, noise = 0.2 + 0.6 * drawn(1, 3, 128, 128), 0.1 * drawn(1, 1, 128, 128)
    norm = task.normalization
    # A change of colour at one luma, and one of luma along the filters that see nothing else.
    no_luma = torch.tensor([LUMA[1], -LUMA[0], 0.0]).view(3, 1, 1)
    no_colour = (torch.tensor(norm.std).square() * torch.tensor(LUMA)).view(3, 1, 1)
    shown = torch.cat([colours, colours + noise * no_luma, colours + noise * no_colour])
    encoder = task.encoder.double().eval()
    maps = encoder(norm.standardize(shown).double(), [task.layer])[task.layer]
    first, last = maps.detach().chunk(2, 1)
    for half, other, changed in ((first, last, 1), (last, first, 2)):
        moved = (other[changed] - other[0]).abs().max()
        assert (half[changed] - half[0]).abs().max() < 1e-5 * moved


def test_the_losses_of_the_halves():
    task, images = task_of("split-brain"), photos(size=72)
    said = outputs_of(task.colour), outputs_of(task.lightness)
    found = stepped(task, images)
    crops = random_crop_flip(images, 64, Randomness(0, 0, torch.arange(4)))
    lab = rgb2lab(crops.permute(0, 2, 3, 1).numpy() / 255)[:, 4::8, 4::8]
    bins = ab_bins(CPU).numpy()
    nearest = np.square(lab[..., None, 1:] - bins).sum(-1).argmin(-1)
    truths = nearest, np.minimum(lab[..., 0].astype(int), 99)
    for name, (logits,), truth in zip(("colour", "lightness"), said, truths, strict=True):
        chances = torch.softmax(F.interpolate(logits, (8, 8), mode="bilinear").double(), 1)
        right = np.take_along_axis(chances.numpy(), truth[:, None], 1)
        assert float(found[name]) == pytest.approx(-np.log(right).mean(), rel=1e-5)
    assert float(found["loss"]) == pytest.approx(float(found["colour"] + found["lightness"]))


@pytest.mark.parametrize("more", [("--norm", "own"), ("--arch", "timm:test_vit")])
def test_networks_that_mix_channels_are_refused(more, bench, tmp_path):
    command = ("pretrain", "split-brain", "--image-size", 160, "--width", 1)
    made = bench(*command, *more, "--workers", 0, "--workspace", tmp_path, *SCENES)
    fails(made, 2, "split-brain takes networks whose channels can be cut into halves")


# ---- both
@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_run_ends_with_the_same_bits(method, tmp_path):
    config = task_of(method, steps=4, batch_size=4, precision="32").config
    assert_stopping_changes_nothing(method, config, tmp_path, images=12)
