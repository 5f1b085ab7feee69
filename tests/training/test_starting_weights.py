"""Starting weights by network: ours are drawn by name, a library's are what it draws itself."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision.models

from ssl_bench import catalogue
from ssl_bench.data.normalization import HALF
from ssl_bench.encoders.alexnet import AlexNet
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.training.build import build_pretext
from ssl_bench.training.pretext import EncoderConfig

LIBRARIES = ["torchvision:resnet18", "timm:resnet18", "timm:vit_tiny_patch16_224"]


def start(method: str = "random", **settings: Any) -> str:
    config = catalogue.pretext(method).Config(**{"image_size": 64, **settings})
    return weights_digest(build_pretext(method, config, HALF)[0].encoder.state_dict())


@pytest.mark.parametrize(
    ("settings", "init"),
    [
        ({}, "gaussian"),
        ({"arch": "dcgan", "image_size": 128}, "gaussian"),
        ({"arch": "timm:resnet18"}, "own"),
        ({"arch": "torchvision:resnet18"}, "own"),
        ({"arch": "timm:resnet18", "init": "fan-in"}, "fan-in"),
        ({"init": "own"}, "own"),
    ],
)
def test_a_record_says_which_even_where_nothing_was_asked_for(settings, init):
    assert EncoderConfig(**settings).model_dump()["init"] == init


def test_a_method_may_have_a_default_of_its_own():
    assert catalogue.pretext("inpainting").Config().init == "dcgan"


def library_model(arch: str, seed: int) -> Any:
    library, _, name = arch.partition(":")
    torch.manual_seed(seed)
    if library == "torchvision":
        return torchvision.models.get_model(name)
    sized: dict[str, Any] = {"img_size": 64} if name.startswith("vit") else {}
    return timm.create_model(name, num_classes=0, **sized)


@pytest.mark.parametrize("arch", LIBRARIES)
def test_own_weights_are_what_the_library_draws_under_the_seed(arch):
    model = library_model(arch, 3)
    expected = weights_digest({f"model.{k}": w for k, w in model.state_dict().items()})
    torch.manual_seed(99)
    np.random.seed(99)
    assert start(arch=arch, seed=3) == expected
    assert start(arch=arch, seed=4) != expected


@pytest.mark.parametrize("method", ["autoencoder", "context-encoder"])
@pytest.mark.parametrize("arch", LIBRARIES)
def test_every_method_starts_from_the_weights_and_statistics_of_the_random_row(arch, method):
    """A blank image that tells the size of a map is no batch to learn from."""
    assert start(method, arch=arch) == start(arch=arch)


def test_own_weights_of_ours_are_those_of_torchs_layers():
    torch.manual_seed(5)
    expected = weights_digest(AlexNet().state_dict())
    assert start(init="own", seed=5) == expected != start(seed=5)


def test_what_stands_beside_an_encoder_with_own_weights_is_drawn_by_fan_in():
    def decoder(init: Any) -> str:
        config = catalogue.pretext("context-encoder").Config(
            arch="timm:resnet18", image_size=64, init=init
        )
        pretext: Any = build_pretext("context-encoder", config, HALF)[0]
        parts = (pretext.channelwise, pretext.convolution, pretext.decoder)
        return " ".join(weights_digest(part.state_dict()) for part in parts)

    assert decoder("own") == decoder("fan-in") != decoder("gaussian")


def test_the_command_says_what_it_is(bench):
    text = " ".join(bench("pretrain", "random", "--help").out.split())
    assert "[gaussian|fan-in|dcgan|own]" in text
    assert "the default of timm's and torchvision's networks. [default: gaussian]" in text
