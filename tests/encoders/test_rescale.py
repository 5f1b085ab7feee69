"""Rescaling: what each channel and each layer has afterwards, and what the network computes."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.counter import generator
from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.alexnet import AlexNet
from ssl_bench.encoders.build import EncoderSpec, build_encoder
from ssl_bench.encoders.chain import chain_obstacle
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.init import Init, initialize
from ssl_bench.encoders.rescale import (
    BETA,
    between_layers,
    change_rates,
    rescale,
    top_of,
    within_layers,
)
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.errors import DataError, UsageError


class Trunk(Encoder):
    """Any module as an encoder with one layer."""

    layers = ("top",)

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*modules)
        initialize(self, "fan-in", 0)

    def forward(
        self, images: Tensor, layers: Sequence[str], keep: Tensor | None = None
    ) -> dict[str, Tensor]:
        return {"top": self.trunk(images)}


class Residual(nn.Module):
    """x + conv(x), the sum made in place or not."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.conv, self.in_place = nn.Conv2d(4, 4, 3, padding=1), in_place

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.in_place:
            y += x
            return y
        return x + y


class Standardized(nn.Conv2d):
    """A convolution that divides its weights by their own deviation."""

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight / self.weight.std(), self.bias)


def pictures(seed: int, count: int = 24, size: int = 96) -> Tensor:
    """Smooth pictures with noise, zero mean and about unit deviation."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 8, 8, generator=draw)
    fine = torch.randn(count, 3, size, size, generator=draw)
    return F.interpolate(coarse, size, mode="bicubic") + 0.3 * fine


def alexnet(init: Init = "gaussian", biases: bool = False) -> AlexNet:
    encoder = AlexNet(0.25).eval()
    initialize(encoder, init, 0, "encoder")
    if biases:
        for name, parameter in encoder.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(parameter, std=0.3, generator=generator(name))
    return encoder


def plain_chain() -> Trunk:
    """A homogeneous chain with biases, whose layers learn at very different rates."""
    relu = nn.ReLU()  # one for both, as many networks do
    pool = nn.MaxPool2d(3, 2)
    chain = Trunk(nn.Conv2d(3, 8, 5, 2), relu, pool, nn.Conv2d(8, 6, 3, groups=2), relu,
                  nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5)).eval()  # fmt: skip
    with torch.no_grad():
        for parameter, factor in zip(chain.parameters(), (30, 3, 0.2, 1, 0.1, 1), strict=True):
            if parameter.ndim == 1:
                nn.init.normal_(parameter, generator=generator(str(factor)))
            parameter.mul_(factor)
    return chain


def before_relu(encoder: AlexNet, images: Tensor) -> dict[str, Tensor]:
    """Each convolution's own output (B, C, h, w), run by hand."""
    found, x = {}, images
    with torch.no_grad():
        for name in encoder.layers:
            stage = getattr(encoder, name)
            for part in stage if isinstance(stage, nn.Sequential) else [stage]:
                x = part(x)
                if isinstance(part, nn.Conv2d):
                    found[name] = x.clone()
    return found


def spread(rates) -> float:
    return max(rates.values()) / min(rates.values())


# ---- within layers


def test_algorithm_1_by_hand():
    layer = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([2.0, -3.0]).view(2, 1, 1, 1))
        layer.bias.copy_(torch.tensor([5.0, 0.0]))  # type: ignore[union-attr]
    images = torch.tensor([1.0, 1.0, 5.0, 5.0]).view(2, 1, 1, 2)  # mean 3, deviation 2
    within_layers(layer, layer, images, beta=0.25)
    assert layer.weight.flatten().tolist() == pytest.approx([0.5, -0.5])
    assert layer.bias.tolist() == pytest.approx([0.25 - 1.5, 0.25 + 1.5])  # type: ignore[union-attr]


@pytest.mark.parametrize("init", ["gaussian", "fan-in"])
def test_every_channel_gets_mean_beta_and_deviation_one(init):
    encoder, images = alexnet(init, biases=True), pictures(0)
    vanishing = before_relu(encoder, images)["conv5"].std(dim=(0, 2, 3))
    within_layers(encoder, top_of(encoder), images)
    for name, z in before_relu(encoder, images).items():
        assert torch.allclose(z.mean((0, 2, 3)), torch.tensor(BETA), atol=1e-4), name
        assert torch.allclose(z.std((0, 2, 3), correction=0), torch.tensor(1.0), atol=1e-3), name
    assert not torch.allclose(vanishing, torch.tensor(1.0), atol=0.05)
    for name, z in before_relu(encoder, pictures(1)).items():  # others of the same kind
        assert (z.mean((0, 2, 3)) - BETA).abs().max() < 0.5, name
        assert (z.std((0, 2, 3)).log().abs() < math.log(1.5)).all(), name


def test_constant_channels_stay_finite():
    encoder = Trunk(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3)).eval()
    first, second = (m for m in encoder.modules() if isinstance(m, nn.Conv2d))
    with torch.no_grad():
        first.weight[1] = 0
        second.weight[2] = 0
    assert within_layers(encoder, top_of(encoder), pictures(0)) == {"trunk.0": 1, "trunk.2": 1}
    with torch.no_grad():
        z = top_of(encoder)(pictures(0))
    assert z.isfinite().all()
    assert torch.allclose(z.mean((0, 2, 3)), torch.tensor(BETA), atol=1e-4)
    assert torch.allclose(z.std((0, 2, 3))[[0, 1, 3]], torch.tensor(1.0), atol=1e-3)
    assert z[:, 2].std() < 1e-6
    flat = torch.ones(4, 3, 32, 32)
    assert within_layers(encoder, top_of(encoder), flat) == {"trunk.0": 6, "trunk.2": 4}
    assert all(p.isfinite().all() for p in encoder.parameters())


def test_groups_are_normalised_as_the_separate_layers_that_they_are():
    images = pictures(0, 8, 24)
    images = torch.cat([images, 100 * pictures(1, 8, 24)], dim=1)  # (8, 6, 24, 24)
    grouped = nn.Conv2d(6, 8, 3, groups=2)
    initialize(grouped, "fan-in", 0)
    halves = [nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)]
    with torch.no_grad():
        for i, half in enumerate(halves):
            half.weight.copy_(grouped.weight[4 * i : 4 * i + 4])
            half.bias.copy_(grouped.bias[4 * i : 4 * i + 4])  # type: ignore[union-attr,index]
    within_layers(grouped, grouped, images)
    for i, half in enumerate(halves):
        within_layers(half, half, images[:, 3 * i : 3 * i + 3])
    expected = torch.cat([half.weight for half in halves])
    assert torch.allclose(grouped.weight, expected, rtol=1e-4)


def test_a_layer_without_bias_gets_the_deviation_only():
    layer = nn.Conv2d(3, 4, 3, bias=False)
    initialize(layer, "fan-in", 0)
    within_layers(layer, layer, pictures(0) + 2)
    z = layer(pictures(0) + 2)
    assert torch.allclose(z.std((0, 2, 3)), torch.tensor(1.0), atol=1e-3)
    assert z.mean((0, 2, 3)).abs().max() > 0.5


def test_a_part_may_be_normalised_alone():
    """Fresh layers on a trained encoder: those of the encoder keep their weights."""
    encoder, head = alexnet("fan-in"), nn.Linear(64, 7)
    before = weights_digest(encoder.state_dict())
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    images = pictures(0, 64)
    within_layers(network, lambda x: network(top_of(encoder)(x)), images)
    assert weights_digest(encoder.state_dict()) == before
    with torch.no_grad():
        logits = network(top_of(encoder)(images))
    assert torch.allclose(logits.std(0, correction=0), torch.tensor(1.0), atol=1e-2)


# ---- between layers


def test_the_rate_by_hand():
    layer, images = nn.Linear(3, 2), torch.randn(16, 3, generator=generator("images"))
    noise = torch.randn(16, 2, generator=generator(7, "rates", 0))
    gradient = noise.T @ images  # of the sum of output × noise
    expected = (gradient.square().mean() / layer.weight.square().mean()).sqrt().item()
    assert change_rates(layer, layer, images, seed=7) == {"": pytest.approx(expected, rel=1e-5)}
    assert layer.weight.grad is None


def test_a_homogeneous_chain_computes_what_it_did():
    chain, images = plain_chain(), pictures(0)
    with torch.no_grad():
        expected = top_of(chain)(pictures(1))
    done = between_layers(chain, top_of(chain), images)
    assert done.distortion < 1e-5
    with torch.no_grad():
        assert torch.allclose(top_of(chain)(pictures(1)), expected, rtol=1e-3, atol=1e-3)
    assert spread(done.before) > 20
    assert spread(done.after) < 1.001
    logs = [math.log(rate) for rate in done.before.values()]
    middle = math.exp(sum(logs) / len(logs))  # the geometric mean stays
    assert list(done.after.values()) == pytest.approx([middle] * len(logs), rel=1e-3)


def test_damping_takes_longer_to_the_same_place():
    spreads = []
    for damping in (0.25, 0.5, 1.0):
        chain = plain_chain()
        done = between_layers(chain, top_of(chain), pictures(0), damping=damping)
        spreads.append(spread(done.after))
        assert done.distortion < 1e-5  # biases follow round by round
    assert spread(done.before) > spreads[0] > spreads[1] >= spreads[2]


@pytest.mark.parametrize("init", ["gaussian", "fan-in"])
def test_alexnets_layers_learn_at_one_rate_and_its_features_stay(init):
    encoder, images, others = alexnet(init, biases=init == "fan-in"), pictures(0), pictures(1)
    with torch.no_grad():
        expected = top_of(encoder)(others)
    raw = change_rates(encoder, top_of(encoder), others, seed=1)
    done = rescale(encoder, images, "alexnet", trained=True)
    assert spread(done.after) < 1.02 < 1.3 < spread(done.before)
    # Other images, other noise: nearly so.
    assert spread(change_rates(encoder, top_of(encoder), others, seed=1)) < min(1.5, spread(raw))
    with torch.no_grad():
        features = top_of(encoder)(others)
    scale = (features * expected).sum() / features.square().sum()
    assert scale.item() == pytest.approx(1, abs=0.02)
    assert done.distortion < 1e-3  # LRN is not exactly homogeneous
    assert ((scale * features - expected).norm() / expected.norm()).item() < 1e-3
    agree = features.flatten(1).argmax(1) == expected.flatten(1).argmax(1)
    assert agree.float().mean() > 0.95


def test_strong_lrn_is_measured_and_said(capsys):
    encoder = alexnet("fan-in")
    with torch.no_grad():
        encoder.conv1[0].weight.mul_(100)  # type: ignore[operator]
        encoder.conv2[2].weight.div_(100)  # type: ignore[operator]
        size = top_of(encoder)(pictures(0)[:16]).abs().mean().item()
    done = rescale(encoder, pictures(0), "alexnet", trained=True)
    assert spread(done.before) > 1e4
    assert spread(done.after) < 1.05
    assert 0.05 < done.distortion < 1
    with torch.no_grad():
        now = top_of(encoder)(pictures(0)[:16]).abs().mean().item()
    assert now == pytest.approx(size, rel=0.02)
    assert "warning: rescaling changed" in capsys.readouterr().err


def test_untrained_weights_take_both_parts():
    encoder = alexnet()
    done = rescale(encoder, pictures(0), "alexnet", trained=False)
    assert spread(done.after) < 1.05
    for name, z in before_relu(encoder, pictures(0)).items():  # one factor for a whole layer
        deviation = z.std((0, 2, 3))
        assert (deviation / deviation.mean() - 1).abs().max() < 0.01, name
    assert set(done.numbers()) == {
        *(f"{name}.rate_{when}" for name in done.before for when in ("before", "after")),
        "distortion",
    }


def test_the_same_images_give_the_same_weights():
    digests = set()
    for _ in range(2):
        encoder = alexnet()
        torch.manual_seed(torch.randint(0, 10**6, ()).item())  # history must not matter
        rescale(encoder, pictures(0), "alexnet", trained=False, seed=3)
        digests.add(weights_digest(encoder.state_dict()))
    assert len(digests) == 1


def test_modes_and_frozen_weights_are_left_as_they_were():
    chain = Trunk(nn.Conv2d(3, 4, 3), nn.Dropout(), nn.ReLU(), nn.Conv2d(4, 4, 3)).train()
    chain.trunk[1].eval()
    chain.trunk[0].requires_grad_(False)
    rescale(chain, pictures(0), "chain", trained=False)
    assert chain.training
    assert not chain.trunk[1].training
    assert [p.requires_grad for p in chain.parameters()] == [False, False, True, True]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in chain.modules())


# ---- refusals


OBSTACLES = {
    "sum": ([nn.Conv2d(3, 4, 3), Residual(False), nn.ReLU()], "a branch or a sum"),
    "sum in place": ([nn.Conv2d(3, 4, 3), Residual(True), nn.ReLU()], "a branch or a sum"),
    "sum at the end": ([nn.Conv2d(3, 4, 3), Residual(True)], "computed behind its last layer"),
    "batch norm": ([nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)], "trunk.1 is a BatchNorm2d"),
    "sigmoid": ([nn.Conv2d(3, 4, 3), nn.Sigmoid()], "trunk.1 is a Sigmoid"),
    "subclass": ([Standardized(3, 4, 3)], "trunk.0 is a Standardized"),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_scales_move_only_along_chains(name, capsys):
    modules, reason = OBSTACLES[name]
    encoder = Trunk(*modules).eval()
    before = weights_digest(encoder.state_dict())
    with pytest.raises(UsageError, match="scales cannot move"):
        between_layers(encoder, top_of(encoder), pictures(0))
    with pytest.raises(UsageError, match=f"weights of net-x cannot be rescaled: .*{reason}"):
        rescale(encoder, pictures(0), "net-x", trained=True)
    assert weights_digest(encoder.state_dict()) == before
    if name != "subclass":
        assert not rescale(encoder, pictures(0), "net-x", trained=False).before
        assert "net-x is normalised within layers, not between them" in capsys.readouterr().err


def test_layers_that_no_scale_fits_are_refused_by_name():
    twice = nn.Conv2d(3, 3, 3)
    with pytest.raises(UsageError, match=r"net-x .*layer trunk\.0 runs more than once"):
        rescale(Trunk(twice, nn.ReLU(), twice), pictures(0), "net-x", trained=False)
    with pytest.raises(UsageError, match=r"net-x .*trunk\.0 does not follow the scale"):
        rescale(Trunk(Standardized(3, 4, 3)), pictures(0), "net-x", trained=False)


def test_dead_layers_and_wild_values_are_refused():
    dead = Trunk(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    with torch.no_grad():
        dead.trunk[0].bias.fill_(-1e4)  # type: ignore[union-attr,operator]
    with pytest.raises(DataError, match=r"layer trunk\.0 cannot learn"):
        rescale(dead, pictures(0), "net-x", trained=True)
    with pytest.raises(DataError, match=r"trunk\.0 gives values that are not finite"):
        rescale(plain_chain(), pictures(0) * math.nan, "net-x", trained=False)


def test_a_library_chain_is_rescaled():
    """ReLUs in place and a graph that is cut out of the model: still a chain."""
    norm = Normalization(mean=(0, 0, 0), std=(1, 1, 1))
    spec = EncoderSpec(arch="torchvision:alexnet", image_size=64, normalization=norm)
    encoder = build_encoder(spec).eval()
    with torch.no_grad():
        expected = top_of(encoder)(pictures(1, 4, 64))
    done = rescale(encoder, pictures(0, 8, 64), spec.arch, trained=True)
    with torch.no_grad():
        features = top_of(encoder)(pictures(1, 4, 64))
    assert torch.allclose(features, expected, rtol=1e-2, atol=1e-4 * float(expected.max()))
    assert spread(done.after) < 1.02 < spread(done.before)


def test_a_batch_normalised_library_model_is_normalised_within_layers():
    norm = Normalization(mean=(0, 0, 0), std=(1, 1, 1))
    spec = EncoderSpec(arch="timm:resnet18", image_size=64, normalization=norm)
    encoder = build_encoder(spec)
    rescale(encoder, pictures(0, 8, 64), spec.arch, trained=False)
    deviations: list[Tensor] = []

    def note(_layer: nn.Module, _inputs: object, output: Tensor) -> None:
        deviations.append(output.std((0, 2, 3)))

    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(note)
    encoder.eval()
    with torch.no_grad():
        top_of(encoder)(pictures(0, 8, 64))
    assert len(deviations) == 20
    assert all(torch.allclose(d, torch.tensor(1.0), atol=0.02) for d in deviations)
    assert chain_obstacle(encoder, top_of(encoder), pictures(0, 1, 64)) is not None
