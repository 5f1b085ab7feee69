"""`--stem small`, a ResNet's 3×3 beginning without pooling; `--stem sobel`, AlexNet's of edges."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import sobel
from torch import nn
from torch.nn import functional as F

from helpers.refusals import fails
from ssl_bench import catalogue
from ssl_bench.data.normalization import HALF
from ssl_bench.encoders.build import EncoderSpec
from ssl_bench.encoders.chain import chain_obstacle
from ssl_bench.encoders.rescale import top_of
from ssl_bench.encoders.sobel import Sobel
from ssl_bench.encoders.weights import load_encoder, save_encoder, weights_digest
from ssl_bench.training.build import build_pretext
from ssl_bench.training.pretext import EncoderConfig, PretextConfig

RESNETS = ["torchvision:resnet18", "timm:resnet18", "timm:test_resnet"]  # the last: a deep stem


def encoder(arch: str, **settings: Any) -> Any:
    config = EncoderConfig.model_validate({"arch": arch, "image_size": 32, **settings})
    return build_pretext("random", config, HALF)[0].encoder.eval()


@pytest.mark.parametrize("arch", RESNETS)
def test_the_first_stage_sees_all_pixels(arch: str) -> None:
    """Worked with the one convolution and what the library has behind it."""
    net = encoder(arch, stem="small")
    model = net.model
    first = net.layers[-5]  # of four stages and `pooled`: layer1
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert net.shape("layer4", 32)[1:] == (4, 4)
    x = F.conv2d(images, model.conv1.weight, padding=1)
    expected = model.layer1(F.relu(model.bn1(x)))
    with torch.no_grad():
        torch.testing.assert_close(net(images, [first])[first], expected)
    assert model.conv1.weight.shape[1:] == (3, 3, 3)
    own = encoder(arch)
    assert own.shape("layer4", 32)[1:] == (1, 1)


def test_the_other_weights_are_drawn_like_the_librarys(tmp_path) -> None:
    """He et al.'s, fan-out: the deviation of 64 · 27 draws is within 5 % of √(2 / (64 · 9))."""
    net = encoder("torchvision:resnet18", stem="small")
    assert float(net.model.conv1.weight.detach().std()) == pytest.approx(
        (2 / (64 * 9)) ** 0.5, rel=0.05
    )
    assert isinstance(net.model.maxpool, nn.Identity)
    again = encoder("torchvision:resnet18", stem="small")
    digest = weights_digest(net.state_dict())
    assert weights_digest(again.state_dict()) == digest
    spec = EncoderConfig(arch="torchvision:resnet18", image_size=32, stem="small").spec(HALF)
    save_encoder(net, spec, tmp_path / "w.safetensors")
    read, found = load_encoder(tmp_path / "w.safetensors")
    assert found == spec
    assert weights_digest(read.state_dict()) == digest


def test_the_default_is_in_no_key_and_no_file() -> None:
    for name in catalogue.names("pretext"):
        assert "stem" not in catalogue.pretext(name).Config().model_dump()
    spec = EncoderSpec(arch="torchvision:resnet18", image_size=64, normalization=HALF)
    assert "stem" not in spec.plain()
    assert PretextConfig(stem="small").model_dump()["stem"] == "small"


@pytest.mark.parametrize("arch", ["alexnet", "dcgan", "timm:test_vit", "torchvision:squeezenet1_1"])
def test_networks_that_are_no_resnets_refuse_it(bench, tmp_path, arch: str) -> None:
    size = ("--image-size", 160 if arch == "timm:test_vit" else 128)
    made = bench("pretrain", "random", "--arch", arch, *size, "--stem", "small",
                 "--data", "scenes:train=2,test=2", "--workspace", tmp_path)  # fmt: skip
    fails(made, 2, "--stem small is for ResNets of timm and torchvision")


def test_inspect_shows_it(bench) -> None:
    shown = bench.ok("inspect", "timm:test_resnet", "--image-size", 32, "--stem", "small").out
    assert "layer4" in shown


# ---- sobel
def test_edges_are_those_of_scipy_on_the_mean_channel() -> None:
    """Theirs falls from right to left, ours from left to right; zeros lie beyond."""
    images = torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    grey = images.mean(1).double().numpy()
    for plane, axis in ((0, 1), (1, 0)):
        expected = [-sobel(image, axis, mode="constant") for image in grey]
        found = Sobel()(images)[:, plane].double().numpy()
        assert found == pytest.approx(np.stack(expected), abs=1e-5)


def test_colours_that_keep_the_mean_are_not_seen() -> None:
    net = encoder("alexnet", image_size=64, width=0.1, stem="sobel")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    shifted = images + torch.tensor([0.5, -0.2, -0.3])[:, None, None]
    with torch.no_grad():
        for layer, maps in net(images, net.layers).items():
            torch.testing.assert_close(net(shifted, net.layers)[layer], maps)
    assert net.conv1[1].weight.shape[1] == 2
    assert net.shape("pool5", 64) == encoder("alexnet", image_size=64, width=0.1).shape("pool5", 64)


def test_weights_behind_edges_are_saved_and_scaled(tmp_path: Path) -> None:
    """What is saved is what learns; a chain all the same, so scales may move through it."""
    config = EncoderConfig(image_size=64, width=0.1, stem="sobel", init="fan-in")
    net = build_pretext("random", config, HALF)[0].encoder
    save_encoder(net, config.spec(HALF), tmp_path / "w.safetensors")
    read, spec = load_encoder(tmp_path / "w.safetensors")
    assert spec.stem == "sobel"
    assert weights_digest(read.state_dict()) == weights_digest(net.state_dict())
    assert net.state_dict().keys() == {n for n, _ in net.named_parameters()}
    assert chain_obstacle(net, top_of(net), torch.zeros(1, 3, 64, 64)) is None


@pytest.mark.parametrize("arch", ["dcgan", "torchvision:resnet18"])
def test_networks_that_are_no_alexnet_refuse_edges(bench, tmp_path, arch: str) -> None:
    made = bench("pretrain", "random", "--arch", arch, "--image-size", 128, "--stem", "sobel",
                 "--data", "scenes:train=2,test=2", "--workspace", tmp_path)  # fmt: skip
    fails(made, 2, "--stem sobel is for alexnet")
