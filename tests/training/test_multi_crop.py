"""Multi-crop, Sinkhorn, other sizes for transformers, weights that a step leaves as they are."""

import copy
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from helpers.refusals import fails
from ssl_bench import catalogue
from ssl_bench.counter import Randomness
from ssl_bench.data.normalization import HALF
from ssl_bench.encoders.build import EncoderSpec, build_encoder
from ssl_bench.training.build import build_pretext
from ssl_bench.training.multi_crop import crops, represented, small_size
from ssl_bench.training.pretext import Step
from ssl_bench.training.sinkhorn import sinkhorn
from ssl_bench.training.views import byol_view, resized_crop, simclr_view

TOY = {"arch": "timm:test_efficientnet", "image_size": 64, "projector": (8,), "batch_size": 4}


def images() -> Tensor:
    return torch.randint(256, (4, 3, 72, 72), generator=torch.Generator().manual_seed(0)).byte()


def step_of(index: int = 0) -> Step:
    places = torch.arange(4)
    return Step(index, places, Randomness(0, index, places), lambda loss: loss.backward())


def task_of(method: str = "swav", **settings: Any) -> Any:
    config = catalogue.pretext(method).Config.model_validate({**TOY, **settings})
    return build_pretext(method, config, HALF)[0].train()


# ---- views
@pytest.mark.parametrize(
    ("arch", "side", "expected"),
    [
        ("torchvision:resnet50", 224, 96), ("torchvision:resnet18", 128, 64),
        ("torchvision:resnet18", 64, 32), ("alexnet", 227, 96), ("alexnet", 96, 64),
        ("timm:vit_tiny_patch16_224", 32, 32),
    ],
)  # fmt: skip
def test_small_views_are_of_the_papers_proportion(arch, side, expected) -> None:
    assert small_size(arch, side) == expected


def test_two_large_and_six_small_views_each_by_its_recipe_and_its_own_numbers() -> None:
    large, small = crops(task_of(), images(), step_of(), (byol_view, simclr_view), simclr_view)
    assert large.shape == (8, 3, 64, 64)
    assert small.shape == (24, 3, 32, 32)
    views = [*large.chunk(2), *small.chunk(6)]
    for i, view in enumerate(views):
        recipe, size, scale = (
            (byol_view if i == 0 else simclr_view, 64, (0.14, 1.0))
            if i < 2
            else (simclr_view, 32, (0.05, 0.14))
        )
        expected = recipe(images(), size, step_of().random.view(str(i)), scale)
        torch.testing.assert_close(view, HALF.standardize(expected))
    assert all((a - b).abs().mean() > 0.05 for a, b in pairwise(views[2:]))


def test_a_large_view_shows_more_of_the_image_than_a_small_one() -> None:
    """A ramp from left to right: a crop's range of brightness is its width."""
    view = partial(resized_crop, ratio=(1.0, 1.0))
    ramp = torch.arange(72).expand(4, 3, 72, 72).mul(3).byte()
    task = task_of(crop_split=0.25)
    large, small = crops(task, ramp, step_of(), (view, view), view)
    widths = [
        (each.amax((1, 2, 3)) - each.amin((1, 2, 3))) / 2 * 255 / 3 for each in (large, small)
    ]
    assert (widths[0] > 0.5 * 72 - 3).all()
    assert (widths[1] < 0.5 * 72 + 1).all()


def test_without_small_views_there_is_one_group() -> None:
    (large,) = crops(task_of(small_crops=0), images(), step_of(), (byol_view, byol_view), byol_view)
    assert large.shape == (8, 3, 64, 64)


def test_a_network_without_pooled_gives_the_mean_of_its_last_map() -> None:
    """At two sizes, which as vectors would have two lengths."""
    task = task_of(arch="alexnet", image_size=128, width=0.1, init="fan-in")
    assert task.config.small_size == 64
    pixels = [torch.randn(2, 3, side, side) for side in (128, 64)]
    found = represented(task.encoder.eval(), "pool5", pixels)
    assert found.shape == (4, task.encoder.shape("pool5", 128)[0])
    maps = task.encoder(pixels[0], ["pool5"])["pool5"]
    torch.testing.assert_close(found[:2], maps.flatten(2).mean(2))


# ---- other sizes
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_places_are_interpolated_as_by_timm(name) -> None:
    """Of a network that timm builds for any size; at its own size nothing changes."""
    torch.manual_seed(0)
    spec = EncoderSpec(arch=f"timm:{name}", image_size=64, normalization=HALF)
    encoder: Any = build_encoder(spec)
    other: Any = timm.create_model(name, img_size=64, num_classes=0, dynamic_img_size=True).eval()
    other.load_state_dict(encoder.model.state_dict())
    own, small = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 32, 32)
    layers, before = encoder.layers, encoder.eval()(own, encoder.layers)
    encoder.take_any_size()
    for layer, given in encoder(own, layers).items():
        assert torch.equal(given, before[layer])
    found = encoder(small, layers)
    assert found[encoder.maps[-1]].shape[2:] == (2, 2)
    torch.testing.assert_close(found["pooled"].flatten(1), other(small))


def test_a_network_of_one_size_is_refused(bench, tmp_path) -> None:
    arch = "timm:swin_tiny_patch4_window7_224"
    words = ("--arch", arch, "--image-size", 64, "--data", "scenes:train=2,test=2")
    made = bench("pretrain", "dino", *words, "--workers", 0, "--workspace", tmp_path)
    fails(made, 2, f"{arch} cannot be used at 32 px")


# ---- Sinkhorn
def scores(rows: int, columns: int) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.rand(rows, columns, generator=draw, dtype=torch.float64) * 2 - 1


def test_rows_of_codes_sum_to_one_and_columns_to_equal_shares(monkeypatch) -> None:
    """Columns in the limit of many iterations."""
    monkeypatch.setattr("ssl_bench.training.sinkhorn.ITERATIONS", 200)
    codes = sinkhorn(scores(12, 5), 0.5)
    torch.testing.assert_close(codes.sum(1), torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(codes.sum(0), torch.full((5,), 12 / 5, dtype=torch.float64))


def test_codes_are_those_of_the_papers_iteration() -> None:
    """Q = diag(u) exp(C / ε) diag(v), prototypes by images, in NumPy with u and v apart."""
    kernel = np.exp(scores(7, 4).numpy().T / 0.05)  # (K, N)
    u, v = np.ones(4), np.ones(7)
    for _ in range(3):
        u = 1 / 4 / (kernel @ v)
        v = 1 / 7 / (kernel.T @ u)
    expected = 7 * (u[:, None] * kernel * v).T
    np.testing.assert_allclose(sinkhorn(scores(7, 4), 0.05).numpy(), expected, rtol=1e-12)


def test_codes_of_the_least_epsilon_are_finite_in_32_bit() -> None:
    extreme = torch.eye(6).mul(2) - 1  # cosines of 1 and −1
    codes = sinkhorn(extreme.bfloat16(), 0.025)
    assert codes.dtype == torch.float32
    torch.testing.assert_close(codes, torch.eye(6))


def test_codes_are_lightlys() -> None:
    loss = pytest.importorskip("lightly.loss.swav_loss", reason="an oracle, and not installed")
    theirs = loss.sinkhorn(scores(9, 6))
    torch.testing.assert_close(sinkhorn(scores(9, 6), 0.05), theirs, rtol=1e-12, atol=1e-15)


# ---- frozen weights
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_frozen_weights_and_their_memories_stay(kind: Any) -> None:
    """Others move; decay does not move them either."""
    net: Any = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    optimizer, before = kind(net.parameters(), 0.1, weight_decay=0.5), copy.deepcopy(net)
    step_of().update(optimizer, net(torch.ones(4, 3)).sum(), frozen=net[1].parameters())
    assert torch.equal(net[1].weight, before[1].weight)
    assert not torch.equal(net[0].weight, before[0].weight)
    assert net[1].weight not in optimizer.state
