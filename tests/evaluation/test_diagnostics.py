"""Effective rank, dead units, how far weights moved: hand-worked cases, and the command."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers.bench import TOY
from helpers.refusals import fails
from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.build import EncoderSpec
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.evaluation.diagnostics import activity, diagnose, distances, effective_rank

SIZE = 64
STEPS = ("--steps", 2, "--batch-size", 4, "--init", "fan-in")


class Two(Encoder):
    """Two layers of a convolution of 1×1 and a ReLU: three channels, then two."""

    layers = ("first", "second")

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.ReLU())
        with torch.no_grad():
            self.first[0].get_parameter("weight").copy_(torch.eye(3).view(3, 3, 1, 1))
            self.first[0].get_parameter("bias").zero_()
            self.second[0].get_parameter("weight").copy_(
                torch.tensor([[1.0, 1, 0], [-1, -1, -1]]).view(2, 3, 1, 1)
            )

    def forward(
        self, images: Tensor, layers: Sequence[str], keep: Tensor | None = None
    ) -> dict[str, Tensor]:
        return self._chain(images, layers, keep)


class Colours:
    """130 images of one colour each, over two batches: red, green, never blue."""

    def __len__(self) -> int:
        return 130

    def images(self, which: slice) -> Tensor:
        rows = torch.arange(130)[which]
        pixels = torch.zeros(len(rows), 3, SIZE, SIZE, dtype=torch.uint8)
        pixels[torch.arange(len(rows)), rows % 2] = 255
        return pixels


PLAIN = Normalization(mean=(0, 0, 0), std=(1, 1, 1))
SPEC = EncoderSpec(arch="alexnet", image_size=SIZE, normalization=PLAIN)


# ---- effective rank
@pytest.mark.parametrize("equal", [1, 3, 8])
def test_equal_singular_values_are_counted(equal: int) -> None:
    random = np.random.default_rng(0)
    left, _ = np.linalg.qr(random.normal(size=(20, equal)))
    right, _ = np.linalg.qr(random.normal(size=(9, equal)))
    assert effective_rank(5 * left @ right.T) == pytest.approx(equal, rel=1e-9)


def test_unequal_ones_by_hand() -> None:
    """Shares 3/4 and 1/4: exp(0.75 ln(4/3) + 0.25 ln 4) = 4 / 3^0.75; rows do not matter."""
    rows = np.array([[3.0, 0, 0], [0, 0, 1], [0, 0, 0]])
    assert effective_rank(rows) == pytest.approx(4 / 3**0.75, rel=1e-12)
    assert effective_rank(rows[::-1].T * 7) == pytest.approx(4 / 3**0.75, rel=1e-12)


def test_nothing_has_no_rank() -> None:
    assert effective_rank(np.zeros((4, 3))) == 0


# ---- dead units
def test_a_channel_that_is_never_above_zero_is_dead() -> None:
    """Blue is in no image, and the second channel of the second layer is below 0 for all."""
    found = diagnose(Two(), SPEC, Colours(), 1000)
    assert [one.layer for one in found] == ["first", "second"]
    assert [one.channels for one in found] == [3, 2]
    assert [one.dead for one in found] == [pytest.approx(1 / 3), 1 / 2]
    assert [one.moved for one in found] == [None, None]
    # 65 red and 65 green images: two equal singular values, then one.
    assert found[0].rank == pytest.approx(2)
    assert found[1].rank == pytest.approx(1)


def test_only_the_images_that_are_asked_for_count() -> None:
    pooled, active = activity(Two(), SPEC, Colours(), 1)
    assert pooled["first"].tolist() == [[1, 0, 0]]
    assert active["first"].tolist() == [True, False, False]  # the first image is red
    assert len(activity(Two(), SPEC, Colours(), 70)[0]["first"]) == 70


# ---- how far weights moved
def test_distances_by_hand() -> None:
    """‖I‖ = √3, and one weight moves by 3, a bias by 4; the second layer's weights double."""
    start, now = Two(), Two()
    with torch.no_grad():
        now.first[0].get_parameter("weight")[0, 1] += 3
        now.first[0].get_parameter("bias")[2] += 4
        now.second[0].get_parameter("weight").mul_(2)
    found = distances(start, now, SIZE)
    assert found == {"first": pytest.approx(5 / 3**0.5), "second": pytest.approx(1)}
    assert set(distances(start, start, SIZE).values()) == {0}


# ---- the command
def test_the_command(bench, workspace) -> None:
    place = ("--workspace", workspace)
    bench.ok("pretrain", "random", *TOY, "--init", "fan-in", *place)
    bench.ok("pretrain", "autoencoder", *TOY, *STEPS, *place)
    words = ("--images", 8, "--workers", 0, *TOY[-2:], *place)
    tables = bench.ok("diagnose", *words).out.split("layer  ")[1:]
    assert len(tables) == 2
    moved = [[line.split()[-1] for line in t.splitlines()[1:7]] for t in tables]
    assert all(float(value) > 0 for value in moved[0][:5])  # autoencoder
    assert moved[1] == ["0"] * 5 + ["–"]  # random; pool5 has no weights
    fails(bench("diagnose", "--encoder", "nothing", *words), 2, "nothing")
