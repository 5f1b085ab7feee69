"""Encoders: the published figures, the tap contract, and weights that fit or are refused."""

from typing import Any

import pytest
import torch
from torch import nn

from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.alexnet import AlexNet
from ssl_bench.encoders.build import EncoderSpec, build_encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.encoders.lrn import LocalResponseNorm
from ssl_bench.encoders.weights import load_encoder, save_encoder, weights_digest
from ssl_bench.errors import DataError, UsageError

HALF = Normalization(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))

PAPER_MAPS = {  # Caffe's CaffeNet at 227 px
    "conv1": (96, 55, 55),
    "conv2": (256, 27, 27),
    "conv3": (384, 13, 13),
    "conv4": (384, 13, 13),
    "conv5": (256, 13, 13),
    "pool5": (256, 6, 6),
}


def test_alexnet_has_the_published_maps_and_parameters():
    encoder = AlexNet()
    assert sum(p.numel() for p in encoder.parameters()) == 2_334_080
    maps = encoder(torch.zeros(1, 3, 227, 227), encoder.layers)
    assert {name: tuple(m.shape[1:]) for name, m in maps.items()} == PAPER_MAPS


@pytest.mark.parametrize(("size", "side"), [(64, 1), (96, 2), (128, 3), (160, 4), (227, 6)])
def test_pooling_rounds_up_as_caffe_does(size, side):
    maps = AlexNet(0.25)(torch.zeros(1, 3, size, size), ["pool5"])
    assert maps["pool5"].shape[-2:] == (side, side)


def test_nothing_is_computed_behind_the_last_layer_asked_for():
    encoder = AlexNet(0.25)
    ran = []
    for name in encoder.layers:
        getattr(encoder, name).register_forward_hook(lambda *_, name=name: ran.append(name))
    maps = encoder(torch.zeros(1, 3, 64, 64), ["conv3", "conv1"])
    assert set(maps) == {"conv1", "conv3"}
    assert ran == ["conv1", "conv2", "conv3"]


def test_local_response_normalisation_is_caffes():
    """Caffe: x / (1 + alpha / n · Σ over n neighbouring channels of x²)^beta, worked by hand."""
    layer = next(m for m in AlexNet().modules() if isinstance(m, nn.LocalResponseNorm))
    x = torch.randn(1, 7, 1, 1, generator=torch.Generator().manual_seed(0)).double() * 50
    y = layer(x).flatten()
    for channel in range(7):
        near = x.flatten()[max(0, channel - 2) : channel + 3]
        expected = x.flatten()[channel] / (1 + 1e-4 / 5 * (near**2).sum()) ** 0.75
        assert torch.isclose(y[channel], expected)


def test_starting_weights_follow_seed_and_rule():
    def weights(init, seed) -> Any:
        encoder = AlexNet(0.5)
        torch.manual_seed(torch.randint(0, 10**6, ()).item())  # history must not matter
        initialize(encoder, init, seed, "encoder")
        return encoder

    assert weights_digest(weights("gaussian", 0).state_dict()) == weights_digest(
        weights("gaussian", 0).state_dict()
    )
    assert weights_digest(weights("gaussian", 0).state_dict()) != weights_digest(
        weights("gaussian", 1).state_dict()
    )
    for encoder, std in ((weights("gaussian", 0), 0.01), (weights("fan-in", 0), (2 / 1728) ** 0.5)):
        conv3 = encoder.conv3[2]  # 1,152 = 128·9 inputs at half width
        expected = std if std == 0.01 else (2 / (128 * 9)) ** 0.5
        assert conv3.weight.std().item() == pytest.approx(expected, rel=0.02)
        assert not conv3.bias.any()


def test_fan_in_keeps_the_scale_of_activations_and_gaussian_does_not():
    images = torch.randn(4, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    scale = {}
    for init in ("gaussian", "fan-in"):
        encoder = AlexNet()
        initialize(encoder, init, 0, "encoder")
        scale[init] = encoder(images, ["conv5"])["conv5"].std().item()
    assert 0.1 < scale["fan-in"] < 10
    assert scale["gaussian"] < 0.01


def test_transposed_convolutions_count_the_inputs_of_one_output():
    layer = nn.ConvTranspose2d(64, 32, 5, 2, 2)
    initialize(layer, "fan-in", 0)
    assert layer.weight.std().item() == pytest.approx((2 / (64 * 25 / 4)) ** 0.5, rel=0.02)


def test_weights_round_trip_with_their_spec(tmp_path):
    spec = EncoderSpec(arch="alexnet", image_size=96, width=0.25, normalization=HALF)
    encoder = build_encoder(spec)
    initialize(encoder, "fan-in", 1, "encoder")
    digest = save_encoder(encoder, spec, tmp_path / "e.safetensors")
    loaded, found = load_encoder(tmp_path / "e.safetensors")
    assert found == spec
    assert weights_digest(loaded.state_dict()) == digest == weights_digest(encoder.state_dict())


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path):
    spec = EncoderSpec(arch="alexnet", image_size=96, width=0.25, normalization=HALF)
    narrow = build_encoder(spec)
    wrong = spec.model_copy(update={"width": 0.5})
    save_encoder(narrow, wrong, tmp_path / "e.safetensors")
    with pytest.raises(DataError, match=r"conv1\.0\.weight is \(24, 3, 11, 11\), not \(48,"):
        load_encoder(tmp_path / "e.safetensors")


def test_the_digest_sees_a_single_bit():
    state = {"w": torch.zeros(3, 3)}
    before = weights_digest(state)
    state["w"][0, 0] = -0.0
    assert weights_digest(state) != before


def test_normalisation_inverts_and_centres():
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    x = HALF.apply(images)
    assert torch.allclose(HALF.invert(x) * 255, images.float(), atol=1e-3)
    mean = torch.tensor(HALF.mean).view(3, 1, 1)
    assert torch.allclose(HALF.invert(torch.zeros(1, 3, 2, 2)), mean.expand(1, 3, 2, 2))


@pytest.mark.parametrize(
    ("arch", "layer", "shape"),
    [
        ("timm:resnet18", "layer3", (256, 4, 4)),
        ("torchvision:resnet18", "layer3", (256, 4, 4)),
        ("torchvision:alexnet", "features.0", (64, 15, 15)),
    ],
)
def test_library_models_are_tapped_by_their_own_names(arch, layer, shape):
    spec = EncoderSpec(arch=arch, image_size=64, normalization=HALF)
    encoder = build_encoder(spec).eval()
    assert layer in encoder.layers
    with torch.no_grad():
        maps = encoder(torch.zeros(2, 3, 64, 64), [layer])
    assert list(maps) == [layer]
    assert tuple(maps[layer].shape[1:]) == shape


def test_timm_maps_equal_the_models_own_forward():
    import timm

    torch.manual_seed(0)
    spec = EncoderSpec(arch="timm:resnet18", image_size=64, normalization=HALF)
    encoder: Any = build_encoder(spec).eval()
    plain: Any = timm.create_model("resnet18", num_classes=0).eval()
    plain.load_state_dict(encoder.model.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(
            encoder(x, ["layer4"])["layer4"], plain.forward_features(x), atol=1e-5
        )


@pytest.mark.parametrize("arch", ["alexnot", "timm:resnet_18", "torchvision:resnot18"])
def test_unknown_architectures_name_the_nearest(arch):
    spec = EncoderSpec(arch=arch, image_size=64, normalization=HALF)
    with pytest.raises(UsageError, match=r"did you mean|known"):
        build_encoder(spec)


def test_unknown_layers_name_the_nearest():
    with pytest.raises(UsageError, match="unknown layer 'conv6'; did you mean conv"):
        AlexNet(0.25)(torch.zeros(1, 3, 64, 64), ["conv6"])


def test_equal_weights_are_equal_files(tmp_path):
    """A file's digest stands in its run's record: the header must not depend on chance."""
    spec = EncoderSpec(arch="alexnet", image_size=96, width=0.1, normalization=HALF)
    encoder = build_encoder(spec)
    paths = [tmp_path / f"{i}.safetensors" for i in range(8)]
    for path in paths:
        save_encoder(encoder, spec, path)
    assert len({path.read_bytes() for path in paths}) == 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_cheap_normalisation_and_its_gradient_are_torchs(layout):
    x = torch.randn(3, 9, 4, 5, generator=torch.Generator().manual_seed(0)).double() * 50
    weight = torch.randn(3, 9, 4, 5, generator=torch.Generator().manual_seed(1)).double()
    given, same = (x.clone().to(memory_format=layout).requires_grad_() for _ in range(2))
    ours, torchs = LocalResponseNorm(5, 1e-2)(given), nn.LocalResponseNorm(5, 1e-2)(same)
    torch.testing.assert_close(ours, torchs, rtol=1e-12, atol=1e-12)
    (ours * weight).sum().backward()
    (torchs * weight).sum().backward()
    torch.testing.assert_close(given.grad, same.grad, rtol=1e-12, atol=1e-12)


def test_the_normalisation_sums_squares_in_32_bit_under_autocast():
    x = torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(0)) * 50
    exact = LocalResponseNorm(5, 1e-2)(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(LocalResponseNorm(5, 1e-2)(x), exact)
