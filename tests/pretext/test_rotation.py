"""Rotation beside its paper: the turns, the loss, sizes of the head, what is learnt."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from helpers.inpainting import NORM, a_step, inputs_of, outputs_of, photos, stepped
from pretext.rotation import Rotation, RotationConfig, four_turns, turn_labels
from ssl_bench.training.build import build_pretext
from ssl_bench.training.schedule import rate_factor


def small(**settings: Any) -> Any:
    values = {"image_size": 64, "width": 0.1, "init": "fan-in", "hidden": 8, **settings}
    return build_pretext("rotation", RotationConfig(**values), NORM)[0]


def test_the_four_turns_by_hand():
    image = torch.tensor([[1, 2], [3, 4]])[None, None]
    expected = [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]]]
    assert four_turns(image)[:, 0].tolist() == expected


def test_turns_stand_behind_each_other_and_are_labelled_so():
    images = torch.randn(3, 3, 5, 5)
    turned, labels = four_turns(images), turn_labels(3, images.device)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    for image, which, turn in zip(turned, list(range(3)) * 4, labels.tolist(), strict=True):
        assert torch.equal(image, torch.rot90(images[which], turn, (1, 2)))


def test_a_step_sees_each_crop_in_all_four_turns():
    pretext = small()
    seen = inputs_of(pretext.encoder)
    stepped(pretext, photos(size=72))
    upright = seen[0][:4]
    assert torch.equal(seen[0], four_turns(upright))
    assert not torch.equal(upright[0], upright[1])


def test_loss_and_accuracy_are_those_of_what_the_head_says():
    pretext = small()
    said = outputs_of(pretext.head)
    found = stepped(pretext, photos(size=72))
    chances = F.softmax(said[0].double(), 1)  # (16, 4)
    right = [float(chances[i, i // 4]) for i in range(16)]  # four images, then the next turn's
    assert float(found["loss"]) == pytest.approx(-sum(map(math.log, right)) / 16, rel=1e-5)
    first = sum(float(p) == float(row.max()) for p, row in zip(right, chances, strict=True))
    assert float(found["accuracy"]) == pytest.approx(100 * first / 16)


def test_who_knows_nothing_pays_the_logarithm_of_four():
    pretext = small(hidden=0)
    torch.nn.init.zeros_(pretext.head[-1].weight)
    assert float(stepped(pretext, photos(size=72))["loss"]) == pytest.approx(math.log(4))


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({"hidden": None, "width": 0.25}, [(1024, 64), (1024, 1024), (4, 1024)]),
        ({"hidden": 0}, [(4, 26)]),
        ({"hidden": None, "arch": "torchvision:resnet18", "width": 1, "init": "own"}, [(4, 512)]),
    ],
)
def test_the_heads_layers(settings, sizes):
    weights = [tuple(w.shape) for w in small(**settings).head.parameters() if w.ndim == 2]
    assert weights == sizes


def test_parameters_of_the_head_at_full_size():
    """fc6, fc7 and the classifier, as released; batch normalisation beside them."""
    pretext = build_pretext("rotation", RotationConfig(), NORM)[0]
    assert isinstance(pretext, Rotation)
    linear = 256 * 36 * 4096 + 4096 * 4096 + 4096 * 4 + 4
    assert sum(p.numel() for p in pretext.head.parameters()) == linear + 4 * 4096


def test_the_rate_falls_after_epochs_15_30_and_45_of_50():
    rates = [rate_factor("rotnet", epoch, 50) for epoch in (0, 14, 15, 29, 30, 44, 45, 49)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_it_learns_which_side_is_up():
    """Images that are brighter at the top."""
    ramp = torch.linspace(255, 0, 72)[:, None].expand(8, 3, 72, 72).byte()
    pretext = small(norm="batch", lr=0.02)
    pretext.optimizers()
    found = [pretext.train_step(ramp, a_step(i, 8)) for i in range(20)]
    assert float(found[0]["accuracy"]) < 60
    assert float(found[-1]["accuracy"]) == 100
