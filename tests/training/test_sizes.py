"""Sizes that a network or a step cannot be used at: one line, with what to ask for instead."""

import numpy as np
import pytest
import torch

from helpers.refusals import SCENES, fails
from pretext.deepcluster import pseudo_labels
from ssl_bench.errors import Degenerate
from ssl_bench.training.collapse import watched

VIT, FEW = "timm:vit_tiny_patch16_224", ("--steps", 1, "--batch-size", 2, "--workers", 0)
ADAM = ("--optimizer", "adamw", "--lr", 1e-4)


@pytest.mark.parametrize("method", ["simclr", "swav", "dino", "lejepa", "random", "mae"])
def test_a_transformer_sees_whole_patches_or_nothing(bench, workspace, method):
    """timm leaves out what is over, without a word, of networks that take a single size."""
    few = {"random": (), "mae": (*FEW, "--warmup", 0)}.get(method, (*FEW, *ADAM))
    command = ("pretrain", method, "--arch", VIT, "--image-size", 40, *few, *SCENES)
    said = "takes an --image-size that patches of 16 px fill, such as 48, not 40"
    fails(bench(*command, "--workspace", workspace), 2, said)
    assert not workspace.exists()


@pytest.mark.parametrize(
    "words", ["jigsaw --tile 32", "lejepa --small-size 40", "dino --small-size 40"]
)
def test_the_option_that_asks_for_another_size_is_named(bench, workspace, words):
    command = ("pretrain", *words.split(), "--arch", VIT, "--image-size", 64, *FEW, *SCENES)
    _, option, size = words.split()
    result = bench(*command, "--workspace", workspace)
    fails(result, 2, f"cannot be used at {size} px ({option}, of images of 64 px)")


@pytest.mark.parametrize("method", ["autoencoder", "colorization"])
def test_a_single_value_has_no_statistics(bench, workspace, method):
    """Of one image whose last map is one cell."""
    network = ("--arch", "timm:test_resnet", "--image-size", 32)
    command = ("pretrain", method, *network, "--steps", 1, "--batch-size", 1, "--workers", 0)
    fails(bench(*command, *SCENES, "--workspace", workspace), 2, "raise --batch-size, or --image-")


@pytest.mark.parametrize("words", ["mae --masked 1e-20", "ibot --masked 0.01 --masked-spread 0"])
def test_something_must_be_hidden(bench, workspace, words):
    command = ("pretrain", *words.split(), "--arch", VIT, "--image-size", 32, "--warmup", 0, *FEW)
    fails(bench(*command, *SCENES, "--workspace", workspace), 2, "hides none of 4 patches")


def test_features_too_large_for_their_squares_are_no_traceback():
    features = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32) * 1e25
    with pytest.raises(Degenerate, match="not finite"):
        pseudo_labels(features, 2, torch.Generator())


def test_one_row_says_nothing_of_a_collapse():
    assert watched(torch.ones(1, 4), torch.ones(1, 4)) == {}
    assert watched(torch.ones(2, 4), torch.ones(2, 4))["spread"] == 0
