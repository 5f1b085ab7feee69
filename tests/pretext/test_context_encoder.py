"""The context encoder beside its paper: sizes, the channel-wise layer, what the loss counts."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.inpainting import a_step, inputs_of, stepped
from helpers.inpainting import photos as photos_of
from pretext.autoencoder import Autoencoder
from pretext.context_encoder import (
    ChannelwiseFullyConnected,
    ContextEncoder,
    ContextEncoderConfig,
    enlarged,
    masked_l2,
    reconstruct,
    up_convolutions,
)
from pretext.random_init import RandomInit
from ssl_bench.counter import Randomness
from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.training.build import build_pretext
from ssl_bench.training.pretext import EncoderConfig, PretextConfig

NORM = Normalization(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


def small(method="context-encoder", config: Any = ContextEncoderConfig, **settings) -> Any:
    values = {"image_size": 64, "width": 0.25, "init": "fan-in", **settings}
    return build_pretext(method, config(**values), NORM)[0]


def photos():
    return photos_of(size=72)


def test_published_parameters_at_full_size():
    pretext = build_pretext("context-encoder", ContextEncoderConfig(), NORM)[0]
    assert isinstance(pretext, ContextEncoder)
    assert pretext.channelwise.weight.numel() == 331_776
    assert pretext.channelwise.bias.numel() == 9_216
    assert sum(p.numel() for p in pretext.encoder.parameters()) == 2_334_080
    assert sum(p.numel() for p in pretext.convolution.parameters()) == 65_792
    assert sum(p.numel() for p in pretext.decoder.parameters()) == 1_180_291


def test_the_decoder_grows_as_in_figure_9():
    x, sides = torch.zeros(1, 256, 6, 6), []
    for layer in up_convolutions(256, 6, 1.0):
        x = layer(x)
        if isinstance(layer, nn.ConvTranspose2d):
            sides.append(tuple(x.shape[1:3]))
    assert sides == [(128, 11), (64, 21), (64, 41), (32, 81), (3, 161)]


@pytest.mark.parametrize(("depth", "sides"), [(1, [11]), (3, [11, 21, 41]), (4, [11, 21, 41, 81])])
def test_a_shallower_decoder_ends_sooner_and_gives_a_whole_image(depth, sides):
    x, found = torch.zeros(1, 256, 6, 6), []
    for layer in up_convolutions(256, 6, 1.0, depth):
        x = layer(x)
        if isinstance(layer, nn.ConvTranspose2d):
            found.append(x.shape[-1])
    assert (found, x.shape[1]) == (sides, 3)
    pretext, x = small(decoder_depth=depth), torch.randn(2, 3, 64, 64)
    assert reconstruct(pretext, x, None).shape == x.shape


@pytest.mark.parametrize("dropout", [0.0, 0.2, 0.5])
def test_the_share_that_is_dropped_behind_the_channelwise_layer(dropout):
    pretext = small(dropout=dropout)
    nn.init.constant_(pretext.channelwise.bias, 1e3)  # above every ReLU: zeros are dropped ones
    seen = inputs_of(pretext.convolution)
    stepped(pretext, photos())
    assert float((seen[0] == 0).float().mean()) == pytest.approx(dropout, abs=0.05)


def test_settings_to_find_causes_with_are_in_no_key_at_their_defaults():
    names = {"loss", "dropout", "decoder_depth", "norm", "start", "warmup"}
    assert not names & ContextEncoderConfig().model_dump().keys()
    set_ = ContextEncoderConfig(loss="l2-centred", dropout=0.1, decoder_depth=3)
    assert names & set_.model_dump().keys() == {"loss", "dropout", "decoder_depth"}


@pytest.mark.parametrize("size", [64, 80, 96, 128, 227])
def test_every_size_and_width_gives_a_whole_image(size):
    pretext = small(image_size=size)
    x = torch.randn(2, 3, size, size)
    output = reconstruct(pretext, x, None)
    assert output.shape == x.shape
    assert output[0].std() > 0  # a 1×1 bottleneck grows too


def test_the_channelwise_layer_equals_a_grouped_convolution():
    layer = ChannelwiseFullyConnected(8, 4)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    grouped = nn.Conv2d(8, 8 * 16, 4, groups=8)
    with torch.no_grad():
        grouped.weight.copy_(layer.weight.transpose(1, 2).reshape(8 * 16, 1, 4, 4))
        grouped.bias.copy_(layer.bias.flatten())  # type: ignore[union-attr]
    x = torch.randn(3, 8, 4, 4)
    assert torch.allclose(layer(x), grouped(x).view(3, 8, 4, 4), atol=1e-5)


def test_every_output_cell_sees_every_cell_of_its_own_map_and_no_other():
    layer = ChannelwiseFullyConnected(3, 4)
    nn.init.normal_(layer.weight)
    x = torch.randn(1, 3, 4, 4)
    jacobian = torch.autograd.functional.jacobian(layer, x)[0, :, :, :, 0]  # type: ignore[index]
    for out_map in range(3):
        for in_map in range(3):
            block = jacobian[out_map][:, :, in_map]
            assert bool((block != 0).all()) == (out_map == in_map)
            assert bool((block == 0).all()) == (out_map != in_map)


def test_the_loss_counts_dropped_pixels_only_and_per_image():
    truth, output = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, :, :2, :2], mask[1, :, 0, 0] = 1, 1
    output[0, :, :2, :2] = 2  # 4 pixels × 3 channels, all wrong by 2
    output[1, 0, 0, 0] = 3  # 1 pixel, one channel of three wrong by 3
    output[:, :, 3, 3] = 100  # outside: must not count
    assert masked_l2(truth, output, mask).item() == pytest.approx((4 + 9 / 3) / 2)


def test_the_centred_loss_leaves_out_each_holes_mean_colour():
    """Errors 1 1 3 3 in one channel of three: 2 is left out, and 1 a pixel counts."""
    truth, mask = torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4)
    mask[..., :2, :2] = 1
    output = torch.zeros(2, 3, 4, 4)
    output[0, 1, :2, :2] = torch.tensor([[1.0, 1], [3, 3]])
    output[:, :, 3, 3] = 100  # outside: no part of a mean
    loss = masked_l2(truth, output, mask, centred=True).item()
    assert loss == pytest.approx((4 * 1 / 12 + 0) / 2)
    shifts = torch.randn(2, 3, 1, 1)  # another colour for each image
    assert masked_l2(truth, output + shifts, mask, centred=True).item() == pytest.approx(
        loss, rel=1e-5
    )
    noise = torch.randn(2, 3, 4, 4)
    means = noise[..., :2, :2].mean((2, 3)).square().mean().item()
    plain, centred = (masked_l2(truth, noise, mask, centred=c).item() for c in (False, True))
    assert centred == pytest.approx(plain - means, rel=1e-4)


def test_no_gradient_comes_from_outside_the_hole():
    output = torch.randn(2, 3, 8, 8, requires_grad=True)
    mask = torch.zeros(2, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    masked_l2(torch.randn(2, 3, 8, 8), output, mask).backward()
    assert output.grad is not None
    assert not (output.grad * (1 - mask)).any()
    assert (output.grad * mask).any()


def test_the_encoder_never_sees_what_was_dropped():
    pretext = small(mask="central")
    seen = inputs_of(pretext.encoder)
    stepped(pretext, photos())
    hole = seen[0][..., 16:48, 16:48]
    assert not hole.any()  # zero in normalised units, hence the mean colour
    assert seen[0][..., :16, :].any()


def test_masks_differ_within_a_batch_and_between_steps():
    pretext = small()
    seen = inputs_of(pretext.encoder)
    pretext.optimizers()
    for index in range(2):
        pretext.train_step(photos(), a_step(index))
    holes = [(x == 0).all(0).numpy().tobytes() for batch in seen for x in batch]
    assert len(set(holes)) == 8


def test_dropout_falls_on_the_channelwise_layer_only_in_training():
    pretext = small()
    x = NORM.apply(photos()[..., :64, :64])
    steady = reconstruct(pretext, x, None)
    assert torch.equal(steady, reconstruct(pretext, x, None))
    first, second = (reconstruct(pretext, x, Randomness(0, s, torch.arange(4))) for s in (0, 1))
    assert not torch.equal(first, second)


def test_every_method_starts_from_the_same_encoder():
    digests = {
        weights_digest(pretext.encoder.state_dict())
        for pretext in (
            small(),
            small("autoencoder", PretextConfig),
            small("random", EncoderConfig),
        )
    }
    assert len(digests) == 1


def test_the_paper_rates_follow_the_mask():
    assert ContextEncoderConfig().lr == 1e-4
    assert ContextEncoderConfig(mask="central").lr == 1e-3
    assert ContextEncoderConfig(mask="central", lr=0.5).lr == 0.5


def test_training_learns_to_fill_with_the_surroundings_colour():
    """Images of one colour each: better than the mean colour only if the context is used."""
    draw = torch.Generator().manual_seed(0)
    plain = (torch.rand(8, 3, 1, 1, generator=draw).expand(-1, -1, 108, 108) * 255).byte()
    pretext = small(lr=1e-3, image_size=96)
    pretext.optimizers()
    losses = [float(pretext.train_step(plain, a_step(i, 8))["loss"]) for i in range(120)]
    mean_colour = float(NORM.apply(plain).square().mean())
    assert sum(losses[-10:]) / 10 < 0.65 * mean_colour


def test_previews_show_input_hole_filling_and_truth():
    pretext = small(mask="central")
    images = photos()
    rows = pretext.preview(images, Randomness(0, 0, torch.arange(4)))
    assert list(rows) == ["input", "holed input", "filled", "truth"]
    outside = torch.ones(64, 64, dtype=torch.bool)
    outside[16:48, 16:48] = False
    assert torch.allclose(rows["filled"][..., outside], rows["input"][..., outside])
    mean = torch.tensor(NORM.mean).view(3, 1, 1)
    assert torch.allclose(rows["holed input"][..., 16:48, 16:48], mean.expand(4, 3, 32, 32))
    assert all(r.min() >= 0 and r.max() <= 1 for r in rows.values())


def test_the_autoencoder_sees_and_counts_everything():
    pretext = small("autoencoder", PretextConfig)
    assert isinstance(pretext, Autoencoder)
    seen = inputs_of(pretext.encoder)
    stepped(pretext, photos())
    assert (seen[0] == 0).float().mean() < 0.01


def test_random_has_nothing_to_train():
    pretext = small("random", EncoderConfig)
    assert isinstance(pretext, RandomInit)
    assert not hasattr(pretext, "train_step")


def test_the_output_is_resized_as_torch_does_with_its_gradient():
    given = torch.randn(2, 3, 11, 11, dtype=torch.float64, requires_grad=True)
    ours = enlarged(given, 24)
    torchs = F.interpolate(given, (24, 24), mode="bilinear", align_corners=False)
    torch.testing.assert_close(ours, torchs)
    weight = torch.randn_like(ours)
    torch.testing.assert_close(*(torch.autograd.grad(o, given, weight)[0] for o in (ours, torchs)))
