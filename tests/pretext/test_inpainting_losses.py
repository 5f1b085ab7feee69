"""The inpainting network beside its paper: both losses, who learns from what, and collapse."""

import math
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation
from torch.nn import functional as F

from helpers.inpainting import (
    MASKS,
    SHARES,
    a_step,
    cropped,
    inputs_of,
    outputs_of,
    photos,
    small,
    stepped,
)
from pretext.inpainting import InpaintingConfig, weighted_l2
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.training.adversarial import CollapseWatch, verdict_loss


# ---- what the reconstruction counts
def test_the_hole_weighs_1_and_its_band_10():
    pretext = small()
    expected = torch.full((64, 64), 10.0)
    expected[7:57, 7:57] = 1
    assert torch.equal(pretext.weights(pretext.central_hole(2)), expected.expand(2, 1, 64, 64))


@pytest.mark.parametrize("mask", ["random-block", "random-region"])
def test_the_band_lies_7_px_around_drawn_holes(mask):
    pretext = small(mask=mask)
    holes = pretext.holes(a_step().random)
    for hole, weights in zip(holes[:, 0].numpy(), pretext.weights(holes)[:, 0], strict=True):
        wide = binary_dilation(hole, np.ones((15, 15)))
        assert wide.sum() > hole.sum() > 0
        expected = np.where(hole, 1, np.where(wide, 10, 0))
        assert np.array_equal(weights, expected)


@pytest.mark.parametrize("mask", MASKS)
def test_without_overlap_only_the_hole_counts(mask):
    pretext = small(mask=mask, overlap=0)
    holes = pretext.holes(a_step().random)
    assert torch.equal(pretext.weights(holes), holes[..., pretext.patch, pretext.patch])
    if mask == "central":
        assert holes.sum() == 4 * 64 * 64


def test_the_weighted_loss_by_hand():
    truth, predicted = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    weights = torch.zeros(2, 1, 4, 4)
    weights[0, :, :2, :2], weights[0, :, 2, :2], weights[1, :, 0, 0] = 1, 10, 1
    predicted[0, :, :2, :2] = 2  # 4 pixels × 3 channels in the hole, all wrong by 2
    predicted[0, :, 2, :2] = 1  # 2 pixels × 3 channels in the band, all wrong by 1
    predicted[1, 0, 0, 0] = 3  # 1 pixel, one channel of three wrong by 3
    predicted[:, :, 3, 3] = 100  # weighs nothing
    first = (12 * 4 + 10 * 6 * 1) / 18
    assert weighted_l2(truth, predicted, weights).item() == pytest.approx((first + 9 / 3) / 2)


# ---- the discriminator
def test_the_discriminator_is_given_the_centre_and_nothing_else():
    pretext = small()
    seen, predicted = inputs_of(pretext.discriminator), outputs_of(pretext.decoder)
    stepped(pretext, photos())
    real, *fakes = seen
    assert torch.equal(real, cropped(photos(), a_step())[..., 32:96, 32:96])
    assert len(fakes) == 2  # for its own update and for the generator's
    assert all(torch.equal(fake, predicted[0]) for fake in fakes)


@pytest.mark.parametrize("mask", ["random-block", "random-region"])
def test_the_discriminator_never_sees_what_weighs_nothing(mask):
    pretext = small(mask=mask)
    blind = pretext.weights(pretext.holes(a_step().random)) == 0
    plain = photos(size=128)  # no room to crop: a pixel stays where it is, or is mirrored
    changed = torch.where(blind & blind.flip(-1), 255 - plain, plain)
    shown = {}
    for name, images in (("plain", plain), ("changed", changed)):
        pretext = small(mask=mask)
        context, shown[name] = inputs_of(pretext.encoder), inputs_of(pretext.discriminator)
        stepped(pretext, images)
        assert all(not (patches * blind).any() for patches in shown[name])
        assert all((patches * ~blind).any() for patches in shown[name])
        shown[name].append(context[0])
    assert torch.equal(shown["plain"][0], shown["changed"][0])
    assert not torch.equal(shown["plain"][-1], shown["changed"][-1])


def test_a_verdict_has_the_cross_entropy_that_does_not_saturate():
    logits = torch.linspace(-6, 6, 25, dtype=torch.float64, requires_grad=True)
    chance = torch.sigmoid(logits)
    for real in (True, False):
        expected = F.binary_cross_entropy(chance, torch.full_like(chance, real))
        assert verdict_loss(logits, real).item() == pytest.approx(expected.item(), rel=1e-5)
    (slope,) = torch.autograd.grad(verdict_loss(logits[:1], True), logits)
    assert slope[0] == pytest.approx(-1 / (1 + math.exp(-6)))  # steep where the fake is found out


# ---- two players
def test_the_generator_learns_ten_times_faster_and_all_weights_learn_once():
    pretext = small(lr=0.02)
    generator, critic = pretext.optimizers()
    assert generator.param_groups[0]["lr"] == pytest.approx(0.02)
    assert critic.param_groups[0]["lr"] == pytest.approx(0.002)
    assert InpaintingConfig().lr == 2e-3
    assert {o.param_groups[0]["betas"][0] for o in (generator, critic)} == {0.5}
    held = [id(p) for o in (generator, critic) for g in o.param_groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in pretext.parameters())
    judges = {id(p) for p in pretext.discriminator.parameters()}
    assert {id(p) for p in critic.param_groups[0]["params"]} == judges


def state_of(optimizer):
    """Digests of an optimiser's weights and of their gradients."""
    weights = dict(enumerate(optimizer.param_groups[0]["params"]))
    gradients = {str(i): w.grad for i, w in weights.items() if w.grad is not None}
    return weights_digest({str(i): w for i, w in weights.items()}), weights_digest(gradients)


def test_the_discriminator_moves_first_and_neither_touches_the_other():
    pretext = small()
    generator, critic = pretext.optimizers()
    events: list[Any] = []
    for name, optimizer in (("generator", generator), ("critic", critic)):

        def note(*_, name=name):
            events.append((name, state_of(generator), state_of(critic)))

        optimizer.register_step_pre_hook(note)
        optimizer.register_step_post_hook(note)
    for index in range(2):
        started = state_of(generator), state_of(critic)
        events.clear()
        pretext.train_step(photos(), a_step(index))
        assert [event[0] for event in events] == ["critic", "critic", "generator", "generator"]
        theirs, judges = zip(*(event[1:] for event in events), strict=True)
        assert theirs[0] == theirs[1] == started[0]  # weights and gradients
        assert judges[0][0] == started[1][0] != judges[1][0]
        assert judges[1] == judges[2] == judges[3] == state_of(critic)
        assert theirs[2][0] == started[0][0] != theirs[3][0]
        assert all(p.requires_grad for p in pretext.parameters())


def test_l2_alone_has_no_discriminator():
    pretext = small(loss="l2")
    (only,) = pretext.optimizers()
    assert len(only.param_groups[0]["params"]) == len(list(pretext.parameters()))
    assert not any("discriminator" in name for name, _ in pretext.named_modules())
    assert {"adversarial", "discriminator"}.isdisjoint(stepped(pretext, photos()))


def relative(found, expected):
    """Length of the error over the length of the expected gradient."""
    a, b = (torch.cat([g.flatten() for g in gs]).double() for gs in (found, expected))
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("mask", ["central", "random-region"])
@pytest.mark.parametrize("loss", SHARES)
def test_gradients_are_those_of_the_losses_in_their_shares(loss, mask):
    """By autograd on a copy; the generator is judged by the discriminator after its update."""
    pretext, step = small(loss=loss, mask=mask), a_step(1)
    stepped(pretext, photos(seed=1))  # whose gradients must be gone
    copy = deepcopy(pretext)
    pretext.train_step(photos(), step)
    x, holes = cropped(photos(), step), copy.holes(step.random)
    hidden = torch.where(holes.bool(), torch.tensor([0.0, -0.2, -0.4]).view(3, 1, 1), x)
    fake = copy.decoder(copy.encoder(hidden, ["bottleneck"])["bottleneck"])
    span = slice(32, 96) if mask == "central" else slice(0, 128)
    real, weights = x[..., span, span], copy.weights(holes)
    errors = (weights * (fake - real) ** 2).sum((1, 2, 3)) / (weights > 0).sum((1, 2, 3)) / 3
    generator = [*copy.encoder.parameters(), *copy.decoder.parameters()]
    found = [p.grad for m in (pretext.encoder, pretext.decoder) for p in m.parameters()]
    share, other = SHARES[loss]
    total = share * errors.mean()
    if loss != "l2":
        counted = weights > 0
        judge, before = pretext.discriminator, copy.discriminator
        total = total + other * F.softplus(-judge(fake * counted)).mean()
        verdicts = before(real * counted), before((fake * counted).detach())
        critical = F.softplus(-verdicts[0]).mean() + F.softplus(verdicts[1]).mean()
        expected = torch.autograd.grad(critical, list(before.parameters()))
        assert relative([p.grad for p in judge.parameters()], expected) < 1e-5
    expected = torch.autograd.grad(total, generator, retain_graph=True)
    assert relative(found, expected) < 1e-5
    if loss == "joint":  # the thousandth would be missed if it were missing
        alone = torch.autograd.grad(errors.mean(), generator)
        assert relative(found, alone) > 1e-4


# ---- a training that has failed
def fed(watch, steps, first=0, loss=1.0, spread=1.0):
    """What the watch says of the last of `steps` steps."""
    truth = photos(size=8).float()
    found = {}
    for index in range(first, first + steps):
        found = watch(index, torch.tensor(loss), spread * truth, truth)
    return found


FAILURES = [({"loss": 0.009}, "has won"), ({"spread": 0.01}, "one picture")]


@pytest.mark.parametrize(("failure", "said"), FAILURES)
def test_a_collapse_is_flagged_at_200_steps_and_said_once(failure, said, capsys):
    watch = CollapseWatch()
    assert fed(watch, 50)["collapsed"] == 0
    assert fed(watch, 199, 50, **failure)["collapsed"] == 0
    assert fed(watch, 1, 249, **failure)["collapsed"] == 1
    assert fed(watch, 600, 250, **failure)["collapsed"] == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("warning: ")
    assert said in lines[0]
    assert fed(watch, 1, 850)["collapsed"] == 0
    assert fed(watch, 199, 851, **failure)["collapsed"] == 0  # it counts anew


def test_a_healthy_training_is_passed_over_in_silence(capsys):
    found = fed(CollapseWatch(), 450, loss=0.011, spread=0.03)
    assert found["collapsed"] == 0
    assert found["variation"] == pytest.approx(0.03, rel=1e-4)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("failure", "said"), FAILURES)
def test_a_resumed_run_knows_for_how_long_it_has_failed(failure, said, capsys):
    before, after = CollapseWatch(), CollapseWatch()
    fed(before, 150, **failure)
    after.load_state_dict(before.state_dict())
    assert fed(after, 49, 150, **failure)["collapsed"] == 0
    assert fed(after, 1, 199, **failure)["collapsed"] == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("loss", SHARES)
def test_a_step_tells_how_much_its_outputs_vary(loss):
    pretext = small(loss=loss)
    predicted = outputs_of(pretext.decoder)
    found = stepped(pretext, photos())
    truth = cropped(photos(), a_step())[..., 32:96, 32:96]
    spread = [np.std(t.numpy(), 0, ddof=1).mean() for t in (predicted[0], truth)]
    assert found["variation"].item() == pytest.approx(spread[0] / spread[1], rel=1e-4)
    assert found["collapsed"] == 0


def test_a_step_counts_towards_a_collapse():
    pretext = small()
    pretext.watch.flat.fill_(199)
    pretext.decoder[-2].weight.data.zero_()  # one grey picture, whatever is shown
    assert stepped(pretext, photos())["collapsed"] == 1
