"""BiGAN: the two losses and their gradients by the paper's formula, the networks, the step."""

import math
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from helpers.interrupted import assert_stopping_changes_nothing
from helpers.steps import images
from pretext.bigan import BiGANConfig, Discriminator, Generator, bounded, small
from ssl_bench.counter import Randomness
from ssl_bench.data.normalization import HALF
from ssl_bench.training.augment import random_crop_flip
from ssl_bench.training.build import build_pretext
from ssl_bench.training.pretext import Step
from ssl_bench.training.schedule import SCHEDULES

TOY: dict[str, Any] = {
    "recipe": "small", "arch": "timm:test_efficientnet", "latent": 6, "channels": 4,
    "batch_size": 4, "steps": 4,
}  # fmt: skip


def task_of(**settings: Any) -> Any:
    """Its discriminator has an opinion: as it is drawn, it tells encoder and generator nothing."""
    task: Any = build_pretext("bigan", BiGANConfig.model_validate(TOY | settings), HALF)[0]
    last = task.discriminator.last.weight
    with torch.no_grad():
        last.copy_(0.05 * torch.randn(last.shape, generator=torch.Generator().manual_seed(1)))
    task.train().optimizers()
    return task


def stepped(task: Any, pixels: Tensor, index: int = 0) -> dict[str, float]:
    random = Randomness(0, index, torch.arange(len(pixels)))
    step = Step(index, random.positions, random, lambda loss: loss.backward())
    return {name: float(value) for name, value in task.train_step(pixels, step).items()}


# ---- the objective
def test_both_sides_descend_the_papers_objective_at_the_same_weights() -> None:
    """V = log D(x, E(x)) + log (1 − D(G(z), z)); the deceivers have its labels exchanged.

    By chances and logarithms, on a copy that took no step, each side's gradients apart.
    """
    task, twin = task_of(), task_of()
    values = stepped(task, images())
    random = Randomness(0, 0, torch.arange(4))
    crops = random_crop_flip(images(), 64, random)
    code = bounded(twin.code(twin.features(crops)))
    drawn = 2 * random.uniform("code", 6) - 1
    of_photographs = twin.discriminator(HALF.apply(crops), code).double().sigmoid()
    of_made = twin.discriminator(twin.generator(drawn), drawn).double().sigmoid()
    told = -(of_photographs.log() + (1 - of_made).log()).mean() / 2
    deceived = -((1 - of_photographs).log() + of_made.log()).mean() / 2
    assert values["discriminator"] == pytest.approx(told.item(), rel=1e-5)
    assert values["loss"] == pytest.approx(deceived.item(), rel=1e-5)
    assert abs(values["loss"] - values["discriminator"]) > 1e-3
    sides = (("discriminator",), told), (("encoder", "code", "generator"), deceived)
    for parts, loss in sides:
        for part in parts:
            weights = dict(getattr(twin, part).named_parameters())
            expected = torch.autograd.grad(loss, [*weights.values()], retain_graph=True)
            found = dict(getattr(task, part).named_parameters())
            assert any(gradient.abs().max() > 1e-4 for gradient in expected), part
            for name, gradient in zip(weights, expected, strict=True):
                torch.testing.assert_close(found[name].grad, gradient, rtol=1e-3, atol=1e-6)


def test_every_weight_learns_and_scales_do_not_decay() -> None:
    task = task_of(weight_decay=0.5)
    before = {name: weight.clone() for name, weight in task.named_parameters()}
    stepped(task, images())
    for name, weight in task.named_parameters():
        assert not torch.equal(weight, before[name]), name
    known = {id(weight) for side in task.optimizers() for weight in all_of(side)}
    assert known == {id(weight) for weight in task.parameters()}
    for side in task.optimizers():
        kinds = [(group["weight_decay"], {w.ndim > 1 for w in group["params"]}) for group in
                 side.param_groups]  # fmt: skip
        assert kinds == [(0.5, {True}), (0, {False})]


def all_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def test_a_discriminator_that_tells_nothing_begins() -> None:
    task: Any = build_pretext("bigan", BiGANConfig.model_validate(TOY), HALF)[0]
    task.train().optimizers()
    values = stepped(task, images())
    assert values["loss"] == values["discriminator"] == pytest.approx(math.log(2))


def test_the_generator_learns_a_code_that_the_discriminator_demands() -> None:
    """Where D is fixed and knows how bright a code's image is to be, G and E come to agree on it.

    D(x, z) = sigmoid(8 · z₀ · mean(x)): a pair is real where its code's first number has the sign
    of its brightness. The deceivers make their pairs so that it errs: E's code then has the sign
    of darkness for bright photographs, and G is bright where z₀ is positive.
    """
    task = task_of(lr=0.02, latent=2)

    class Fixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.free = torch.nn.Parameter(torch.zeros(1))

        def forward(self, pixels: Tensor, code: Tensor) -> Tensor:
            return 8 * code[:, :1] * pixels.mean((1, 2, 3))[:, None] + 0 * self.free

    task.discriminator = Fixed()
    task.optimizers()
    bright = torch.where(torch.arange(16) % 2 == 0, 230, 25).to(torch.uint8)
    pixels = bright[:, None, None, None].expand(-1, 3, 72, 72).contiguous()
    for index in range(40):
        stepped(task, pixels, index)
    codes = bounded(task.code(task.features(pixels[..., :64, :64])))[:, 0]
    assert (codes[::2] < -0.5).all()
    assert (codes[1::2] > 0.5).all()
    drawn = torch.linspace(-1, 1, 16)[:, None].expand(-1, 2)
    made = task.generator(drawn).mean((1, 2, 3))
    assert made[-4:].min() > 0.3 > -0.3 > made[:4].max()


# ---- the networks
def test_the_networks_are_those_of_the_released_code() -> None:
    """Weights by hand: 64 channels, a code of 200."""
    counts = [
        sum(weight.numel() for weight in network.parameters())
        for network in (Generator(200, 64), Discriminator(200, 64))
    ]
    inner = 25 * (64 * 128 + 128 * 256 + 256 * 512)  # kernels of 5×5, either way
    flat = 512 * 16
    generator = 200 * flat + 2 * flat + inner + (200 + 2) * (256 + 128 + 64) + 25 * 64 * 3
    discriminator = 25 * 3 * 64 + inner + (200 + 2) * (128 + 256 + 512) + flat
    assert counts == [generator, discriminator]


def test_what_is_made_fills_the_range_of_pixels_and_depends_on_the_code_everywhere() -> None:
    generator: Any = Generator(6, 4).eval()
    made = generator(torch.randn(5, 6))
    assert made.shape == (5, 3, 64, 64)
    assert made.abs().max() <= 1
    code = torch.zeros(1, 6, requires_grad=True)
    for shifted in generator.inner:
        maps = torch.zeros(1, shifted.convolution.in_channels, 4, 4)
        (slope,) = torch.autograd.grad(shifted(maps, code).sum(), code)
        assert slope.abs().min() > 0
    values = torch.linspace(-4, 4, 9)
    torch.testing.assert_close(bounded(values), torch.tanh(values / 2))


def test_the_discriminator_sees_the_photograph_at_64_px() -> None:
    """Of 112 px, antialiased: a chequerboard is grey."""
    board = (torch.arange(112)[:, None] + torch.arange(112)) % 2 * 255
    pixels = board.to(torch.uint8).expand(1, 3, -1, -1)
    found = small(pixels)
    assert found.shape == (1, 3, 64, 64)
    assert found.abs().max() < 0.25
    ready = images(side=64)
    assert torch.equal(small(ready), HALF.apply(ready))


# ---- settings, and a run
def test_the_released_defaults() -> None:
    config = BiGANConfig()
    assert (config.image_size, config.batch_size, config.latent, config.channels) == (
        112,
        128,
        200,
        64,
    )
    assert (config.lr, config.weight_decay) == (2e-4, 2.5e-5)
    assert config.steps == 100 * 1_281_167 // 128
    course = [SCHEDULES[config.schedule](done) for done in (0, 0.5, 0.75, 1)]
    assert course == pytest.approx([1, 1, 0.1, 0.01])


def test_a_stopped_run_ends_with_the_same_bits(tmp_path) -> None:
    assert_stopping_changes_nothing("bigan", BiGANConfig.model_validate(TOY), tmp_path)


@pytest.mark.parametrize("arch", [("alexnet", "--width", 0.1, "--norm", "batch")])
def test_it_trains_from_the_command_line_and_is_measured(bench, tmp_path, arch) -> None:
    where = ("--data", "scenes:train=16,test=8", "--workers", 0, "--workspace", tmp_path)
    toy = ("--steps", 2, "--batch-size", 8, "--channels", 4, "--image-size", 80)
    bench.ok("pretrain", "bigan", "--arch", *arch, *toy, "--preview", *where)
    assert (
        "| bigan "
        in bench.ok("knn", "--encoder", "bigan", "--layer", "conv3", "--k", 5, *where).out
    )
    (picture,) = tmp_path.glob("pretrain/bigan-*/preview.png")
    with Image.open(picture) as drawn:
        assert min(drawn.size) > 200
