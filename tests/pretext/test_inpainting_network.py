"""The inpainting network beside its paper: sizes, the hole, filling, whole runs."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file
from scipy.stats import kstest
from torch import Tensor, nn

from helpers.bench import Bench, launched, overriding
from helpers.inpainting import (
    COMMAND,
    HOLE,
    MASKS,
    NORM,
    TOY,
    a_step,
    cropped,
    filler,
    inputs_of,
    photos,
    small,
    stepped,
)
from helpers.refusals import SCENES, fails
from pretext.inpainting import InpaintingConfig, weighted_l2
from ssl_bench import catalogue
from ssl_bench.cli.inspect import describe
from ssl_bench.counter import batch_indices
from ssl_bench.data.store.squares import open_store
from ssl_bench.encoders.dcgan import DCGAN
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.errors import UsageError
from ssl_bench.records.workspace import folder_of, read_records
from ssl_bench.runtime import Runtime
from ssl_bench.training.adversarial import verdict_loss
from ssl_bench.training.build import build_pretext, open_pretext
from ssl_bench.training.loop import train
from ssl_bench.training.masks import square
from ssl_bench.training.pretext import Inpaints


# ---- the networks
def test_inspect_prints_the_published_weights_and_sizes(bench: Bench):
    found = json.loads(bench("inspect", "inpainting", "--json").out)
    parts = found["parts"]
    assert parts["encoder"]["weights"] + parts["decoder"]["weights"] == 71_112_704
    assert parts["discriminator"]["weights"] == 2_763_776
    assert all(part["biases"] == 0 for part in parts.values())
    shapes = [layer["shape"] for layer in found["layers"] if layer["kind"] == "ConvTranspose2d"]
    assert shapes == [[512, 4, 4], [256, 8, 8], [128, 16, 16], [64, 32, 32], [3, 64, 64]]
    assert found["taps"] == {  # figure 9a
        "conv1": [64, 64, 64],
        "conv2": [64, 32, 32],
        "conv3": [128, 16, 16],
        "conv4": [256, 8, 8],
        "conv5": [512, 4, 4],
        "bottleneck": [4000, 1, 1],
    }
    generator, critic = found["learners"]
    assert (generator["parts"], generator["weights"]) == (["encoder", "decoder"], 71_112_704)
    assert (critic["parts"], critic["weights"]) == (["discriminator"], 2_763_776)
    text = describe(found)
    assert "71,112,704" in text
    assert "2,763,776" in text


@pytest.mark.parametrize("mask", MASKS)
def test_the_centre_or_the_whole_image_is_predicted(mask):
    pretext, side = small(mask=mask), 64 if mask == "central" else 128
    x = cropped(photos(), a_step())
    predicted = pretext.predict(x, pretext.holes(a_step().random))
    assert predicted.shape == (4, 3, side, side)
    assert predicted.abs().max() <= 1
    assert pretext.discriminator(predicted).shape == (4, 1, 1, 1)


def test_nothing_is_computed_behind_the_last_layer_asked_for():
    encoder = DCGAN(0.05, 8)
    ran = []
    for name in encoder.layers:
        getattr(encoder, name).register_forward_hook(lambda *_, name=name: ran.append(name))
    maps = encoder(torch.zeros(2, 3, 128, 128), ["conv3", "conv1"])
    assert set(maps) == {"conv1", "conv3"}
    assert ran == ["conv1", "conv2", "conv3"]


def test_every_batch_norm_and_leak_is_where_the_paper_has_it():
    pretext = small()
    for name in DCGAN.layers:
        kinds = [type(m) for m in getattr(pretext.encoder, name)]
        assert (nn.BatchNorm2d in kinds) == (name != "conv1")
    leaks = [m.negative_slope for m in pretext.modules() if isinstance(m, nn.LeakyReLU)]
    assert leaks == [0.2] * (6 + 4)
    assert [type(m) for m in pretext.discriminator][:2] == [nn.Conv2d, nn.LeakyReLU]
    assert [type(m) for m in pretext.decoder][-2:] == [nn.ConvTranspose2d, nn.Tanh]


@pytest.mark.parametrize("part", ["encoder", "decoder", "discriminator"])
def test_starting_weights_are_normal_with_the_published_deviation(part):
    module = getattr(small(width=0.25, bottleneck=200), part)
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    weights = [p.detach().flatten() for p in module.parameters() if p.ndim == 4]
    scales = torch.cat([m.weight.detach() for m in norms])
    assert kstest(torch.cat(weights).numpy() / 0.02, "norm").pvalue > 1e-3
    assert kstest((scales.numpy() - 1) / 0.02, "norm").pvalue > 1e-3
    assert not any(m.bias.any() for m in norms)


def test_random_is_where_inpainting_began(bench: Bench, workspace):
    more = ("--seed", 3, "--workspace", workspace)
    bench.ok(*COMMAND, "--steps", 1, *more)
    same = ("--arch=dcgan", "--init=dcgan", "--image-size=128", "--width=0.05", "--workers=0")
    bench.ok("pretrain", "random", *same, *SCENES, *more)
    trained, random = (r.details.encoder for r in read_records(workspace, "pretrain"))
    assert trained.start == random.digest
    assert trained.digest != random.digest


# ---- the hole
def test_the_hole_is_the_middle_50_px_in_the_training_images_mean_colour():
    pretext, step = small(), a_step()
    seen = inputs_of(pretext.encoder)
    stepped(pretext, photos())
    colour = torch.tensor([0.0, -0.2, -0.4]).view(3, 1)  # red, green, blue: 2 · mean − 1
    assert torch.allclose(seen[0][..., HOLE], colour.expand(4, 3, 2500), atol=1e-6)
    assert torch.equal(seen[0][..., ~HOLE], cropped(photos(), step)[..., ~HOLE])


@pytest.mark.parametrize("mask", MASKS)
def test_what_was_dropped_never_reaches_the_network(mask):
    pretext, step = small(mask=mask), a_step()
    x, holes = cropped(photos(), step), pretext.holes(step.random)
    other = torch.where(holes.bool(), -x.flip(0), x)
    assert not torch.equal(other, x)
    seen = inputs_of(pretext.encoder)
    assert torch.equal(pretext.predict(x, holes), pretext.predict(other, holes))
    outside = ~holes.bool().expand_as(x)
    assert torch.equal(seen[0][outside], x[outside])


# ---- filling
def holed(size, top, left, side, count=2):
    holes = torch.zeros(count, 1, size, size)
    holes[..., top : top + side, left : left + side] = 1
    return holes


PLACES = [  # method, mask, side of the image, and a hole's top, left and side
    ("inpainting", "central", 128, (39, 39, 50)),
    ("inpainting", "central", 128, (60, 50, 20)),
    ("inpainting", "random-region", 128, (0, 100, 28)),
    ("context-encoder", "central", 64, (16, 16, 32)),
    ("context-encoder", "random-region", 64, (50, 0, 14)),
]


@pytest.mark.parametrize(("method", "mask", "size", "place"), PLACES)
def test_a_fill_is_the_image_but_for_its_hole(method, mask, size, place):
    network, images, holes = filler(method, mask), photos(2, size), holed(size, *place)
    assert isinstance(network, Inpaints)
    filled = network.fill(images, holes)
    inside, truth = holes.bool().expand_as(images), images.float() / 255
    assert filled.min() >= 0
    assert filled.max() <= 1
    assert (filled - truth).abs()[inside].mean() > 0.01
    assert torch.equal(filled[~inside], truth[~inside])


@pytest.mark.parametrize(("method", "mask", "size", "place"), PLACES)
def test_a_fill_does_not_look_into_its_hole(method, mask, size, place):
    network, images, holes = filler(method, mask), photos(2, size), holed(size, *place)
    other = torch.where(holes.bool(), 255 - images, images)
    assert torch.equal(network.fill(images, holes), network.fill(other, holes))


@pytest.mark.parametrize(("method", "size"), [("inpainting", 128), ("context-encoder", 64)])
def test_a_central_network_is_always_shown_its_whole_hole(method, size):
    network, images = filler(method, "central"), photos(2, size)
    holes = holed(size, size // 2, size // 2, 4)
    shown = square(2, size, round(network.reach * size)).bool()
    other = torch.where(shown, 255 - images, images)
    inside = holes.bool().expand_as(images)
    assert torch.equal(network.fill(images, holes)[inside], network.fill(other, holes)[inside])


@pytest.mark.parametrize(("method", "size", "first", "last"), [
    ("inpainting", 128, 39, 88), ("context-encoder", 64, 16, 47),
])  # fmt: skip
def test_a_central_network_refuses_a_hole_beyond_its_own(method, size, first, last):
    network, images, middle = filler(method, "central"), photos(2, size), size // 2
    assert network.reach == (last - first + 1) / size
    for top, left in ((first, middle), (middle, last)):
        network.fill(images, holed(size, top, left, 1))
    for top, left in ((first - 1, middle), (middle, first - 1), (last + 1, middle)):
        with pytest.raises(UsageError, match="--mask central"):
            network.fill(images, holed(size, top, left, 1))


def test_previews_show_input_hole_filling_and_truth():
    pretext = small().eval()
    rows = pretext.preview(photos(), a_step().random)
    assert set(rows) == {"input", "holed input", "filled", "truth"}
    colour = torch.tensor(NORM.mean).view(3, 1)
    assert torch.allclose(rows["holed input"][..., HOLE], colour.expand(4, 3, 2500))
    assert torch.equal(rows["holed input"][..., ~HOLE], rows["input"][..., ~HOLE])
    assert torch.equal(rows["truth"][..., HOLE], rows["input"][..., HOLE])
    assert torch.equal(rows["filled"], pretext.fill(photos()[..., 8:136, 8:136], HOLE * 1.0))


# ---- requests that cannot be met
def test_one_image_on_a_device_is_refused():
    with pytest.raises(UsageError, match="--batch-size"):
        stepped(small(), photos(1))


@pytest.mark.parametrize(("name", "value"), [
    ("image_size", 96), ("image_size", 227), ("arch", "alexnet"), ("batch_size", 1),
    ("overlap", 17), ("loss", "l1"),
])  # fmt: skip
def test_settings_that_are_not_this_networks_are_refused(name, value, bench: Bench, workspace):
    with pytest.raises(ValidationError, match=name):
        InpaintingConfig(**{name: value})
    flag = "--" + name.replace("_", "-")
    if name != "loss":  # click's own refusal has an exit code, but another form
        fails(bench("pretrain", "inpainting", flag, value, "--workspace", workspace), 2, flag)
    assert not workspace.exists()


# ---- whole runs
@pytest.fixture(scope="module")
def store():
    return open_store(catalogue.dataset("scenes:train=24,test=4"), "train", 128, workers=0)


def trained(store, folder, dies_at=None, **settings):
    """Digest of all weights and counts after training, or what is left of a killed one."""
    folder.mkdir(exist_ok=True)
    config = InpaintingConfig(**{**TOY, "steps": 5, "batch_size": 4, **settings})
    pretext: Any = build_pretext("inpainting", config, store.normalization)[0]
    plain = pretext.train_step

    def dying(images, step):
        if step.index == dies_at:
            raise RuntimeError("power cut")
        return plain(images, step)

    pretext.train_step = dying
    train(pretext, store, config, 0, Runtime(workers=0, checkpoint_steps=2), folder)
    return weights_digest(pretext.state_dict())


@pytest.mark.parametrize("settings", [
    {}, {"loss": "adversarial", "mask": "random-region"}, {"loss": "l2"},
])  # fmt: skip
def test_a_killed_run_continues_to_the_same_weights(settings, store, tmp_path):
    with pytest.raises(RuntimeError, match="power cut"):
        trained(store, tmp_path / "killed", dies_at=3, **settings)
    assert torch.load(tmp_path / "killed" / "checkpoint.pt", weights_only=True)["step"] == 2
    whole = trained(store, tmp_path / "whole", **settings)
    assert trained(store, tmp_path / "killed", **settings) == whole


def test_a_run_ends_with_finite_numbers_weights_and_a_picture(bench: Bench, workspace):
    toy = ("--bottleneck", 8, "--steps", 3, "--preview", "--workspace", workspace)
    bench.ok(*COMMAND, *toy)
    (record,) = read_records(workspace, "pretrain")
    names = {"loss", "reconstruction", "adversarial", "discriminator", "variation", "collapsed"}
    assert set(record.metrics) == names
    assert all(math.isfinite(value) for value in record.metrics.values())
    parts = 0.999 * record.metrics["reconstruction"] + 0.001 * record.metrics["adversarial"]
    assert record.metrics["loss"] == pytest.approx(parts, rel=1e-5)
    assert set(record.files) == {"encoder.safetensors", "rest.safetensors"}
    folder = folder_of(workspace, record)
    with Image.open(folder / "preview.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 100
    opened: Any = open_pretext(record, folder)
    pixels = open_store(catalogue.dataset(SCENES[1]), "train", 128).pixels
    means = pixels.reshape(-1, 3).mean(0) / 127.5 - 1  # red, green, blue
    assert np.allclose(opened.colour.flatten(), means, atol=1e-5)
    assert np.ptp(means) > 1e-3  # another order would show


def test_two_processes_learn_what_the_whole_batch_teaches_one(tmp_path):
    """Statistics of batch normalisation and gradients are those of all images.

    Adam's first update is the rate times the gradient's sign, which rounding decides where the
    gradient is nearly 0: so nearly all weights, not all, end where one process puts them. With the
    first half of the batch alone many end elsewhere.
    """
    words = overriding(COMMAND, "--batch-size", 16, "--steps", 1)
    launched([*map(str, words), "--devices=2", f"--workspace={tmp_path}"])
    (record,) = read_records(tmp_path, "pretrain")
    assert record.details.training
    assert record.details.training["devices"] == 2
    assert all(math.isfinite(value) for value in record.metrics.values())
    folder = folder_of(tmp_path, record)
    ended = load_file(folder / "rest.safetensors")
    ended |= {f"encoder.{k}": v for k, v in load_file(folder / "encoder.safetensors").items()}
    whole, first = (strayed(ended, images) for images in (16, 8))
    assert whole.keys() == {"encoder", "decoder", "discriminator"}
    for part, share in whole.items():
        assert share < 0.02, part
        assert first[part] > 0.1, part


def strayed(ended: dict[str, Tensor], count: int) -> dict[str, float]:
    """The share of each part's weights that one process, taught by so many images of 16, puts more
    than a twentieth of the update from where they `ended`."""
    images = open_store(catalogue.dataset(SCENES[1]), "train", 128)
    config = InpaintingConfig(width=0.05, batch_size=16)
    pretext: Any = build_pretext("inpainting", config, images.normalization)[0].train()
    generator, critic = pretext.optimizers()
    which = batch_indices(0, 0, torch.arange(count), 16, len(images))
    x = cropped(images.images(which.numpy()), a_step(count=count))
    holes = pretext.central_hole(count)
    real, fake, judge = x[..., 32:96, 32:96], pretext.predict(x, holes), pretext.discriminator
    (verdict_loss(judge(real), True) + verdict_loss(judge(fake.detach()), False)).backward()
    critic.step()
    weighted = weighted_l2(real, fake, pretext.weights(holes))
    (0.999 * weighted + 0.001 * verdict_loss(judge(fake), True)).backward()
    generator.step()
    off: dict[str, list[Tensor]] = {}
    for name, tensor in pretext.named_parameters():
        part = name.partition(".")[0]
        rate = 2e-4 if part == "discriminator" else 2e-3
        off.setdefault(part, []).append(((ended[name] - tensor).abs() > rate / 20).flatten())
    return {part: torch.cat(found).float().mean().item() for part, found in off.items()}
