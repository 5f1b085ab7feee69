"""The network of segmentation: where its scores lie, and what its fresh layers start as."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from eval.networks.fcn import FCN, bilinear, upsample
from eval.networks.geometry import Geometry
from helpers.subjects import subject
from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.build import EncoderSpec, build_encoder

PLAIN = Normalization(mean=(0.5, 0.4, 0.3), std=(0.25, 0.25, 0.25))


def test_alexnet_has_the_published_geometry():
    """Padding 100, stride 32, the crop by 18 px of an upsampling whose first centre is at 31."""
    network = FCN(subject(PLAIN).encoder, "pool5", 11, head=8)
    assert (network.geometry.stride, network.geometry.offset) == (32, 33)
    assert (network.padding, network.first) == (100, 31 - 18)
    encoder = subject(PLAIN).encoder
    padding = [FCN(encoder, "pool5", 11, head=8, kernel=k).padding for k in (1, 2, 3)]
    assert padding == [20, 36, 52]
    assert [Geometry(encoder, layer).stride for layer in ("conv1", "conv5")] == [4, 16]


@pytest.mark.parametrize("arch", ["torchvision:resnet18", "timm:vgg11", "torchvision:alexnet"])
def test_other_networks_cells_lie_where_their_layers_say(arch):
    """Within 2 px of what kernels, strides and padding give."""
    spec = EncoderSpec(arch=arch, image_size=224, normalization=PLAIN)
    encoder = build_encoder(spec)
    geometry = Geometry(encoder, encoder.maps[-1])
    known = {"torchvision:resnet18": (32, 0), "timm:vgg11": (32, 15.5),
             "torchvision:alexnet": (32, 31)}[arch]  # fmt: skip
    assert geometry.stride == known[0]
    assert abs(geometry.offset - known[1]) <= 2
    network = FCN(encoder, encoder.maps[-1], 3, kernel=2, head=4)
    assert network(torch.randn(1, 3, 45, 70)).shape == (1, 3, 45, 70)


def test_upsampling_is_the_published_layer_and_crop():
    """Caffe's: a transposed convolution, kernel 63, stride 32, cropped by 18 px."""
    scores = torch.randn(2, 3, 4, 5)
    ramp = 1 - (torch.arange(63) - 31).abs() / 32
    kernel = (ramp[:, None] * ramp)[None, None].repeat(3, 1, 1, 1)
    full = F.conv_transpose2d(scores, kernel, stride=32, groups=3)
    expected = full[..., 18 : 18 + 101, 18 : 18 + 130]
    assert torch.allclose(upsample(scores, 32, 13, (101, 130)), expected, atol=1e-5)


def test_upsampling_is_bilinear_interpolation_between_the_outermost_centres():
    scores = torch.randn(1, 2, 4, 5)
    found = upsample(scores, 8, 3.5, (32, 40))
    expected = F.interpolate(scores, scale_factor=8, mode="bilinear", align_corners=False)
    assert torch.allclose(found[..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4], atol=1e-5)


def test_a_linear_ramp_stays_one():
    weights = bilinear(6, 16, 5, 80)
    assert torch.allclose(weights[5:].sum(1), torch.ones(75))
    centres = 5 + 16 * torch.arange(6.0)
    assert torch.allclose(weights[5:] @ centres, torch.arange(5.0, 80), atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (33, 77), (101, 50)])
@pytest.mark.parametrize("kernel", [1, 3, 6])
def test_every_pixel_has_a_score(size, kernel):
    """The output has the image's size, odd or even, and a bias reaches every pixel of it."""
    network = FCN(subject(PLAIN).encoder, "pool5", 3, kernel=kernel, head=4).eval()
    nn.init.ones_(network.score.bias)  # type: ignore[arg-type]
    with torch.no_grad():
        scores = network(torch.randn(2, 3, *size))
    assert scores.shape == (2, 3, *size)
    assert bool((scores > 0).all())


def convolutions(network):
    return [layer for layer in network.fc67 if isinstance(layer, torch.nn.Conv2d)]


def test_fresh_layers_start_as_caffenets():
    network = FCN(subject(PLAIN, width=1).encoder, "pool5", 21)
    fc6, fc7 = convolutions(network)
    for layer in (fc6, fc7):
        assert float(layer.weight.detach().std()) == pytest.approx(0.005, rel=0.01)
        assert layer.bias is not None
        assert bool((layer.bias == 1).all())
    assert not network.score.weight.any()
    assert [tuple(m.weight.shape) for m in (fc6, fc7, network.score)] == [
        (4096, 256, 6, 6), (4096, 4096, 1, 1), (21, 4096, 1, 1),
    ]  # fmt: skip
    small = FCN(subject(PLAIN, width=1).encoder, "pool5", 21, kernel=3, head=4096)
    assert float(convolutions(small)[0].weight.detach().std()) == pytest.approx(0.01, rel=0.01)
