"""NPID beside its paper: the loss over the bank, what the bank holds, how it follows."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import pretext.npid
from pretext.npid import NPIDConfig, instance_loss, view
from ssl_bench.counter import Randomness
from ssl_bench.data.normalization import HALF
from ssl_bench.training.build import build_pretext
from ssl_bench.training.pretext import Step
from ssl_bench.training.schedule import rate_factor

IMAGES, BATCH = 11, 4


def unit(rows: int, seed: int, width: int = 5) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=draw, dtype=torch.float64))


OWN, BANK, PLACES = unit(BATCH, 1), unit(IMAGES, 2), torch.tensor([3, 0, 10, 3])


def by_numpy(own: np.ndarray, bank: np.ndarray, temperature: float) -> float:
    """Equation 2, image by image."""
    losses = []
    for output, place in zip(own, PLACES.tolist(), strict=True):
        scores = [np.exp(output @ entry / temperature) for entry in bank]
        losses.append(-np.log(scores[place] / sum(scores)))
    return float(np.mean(losses))


@pytest.mark.parametrize("part", [4, 1 << 16])
def test_value_and_gradient(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the bank in parts of 4, 4 and 3 entries, and as a whole."""
    monkeypatch.setattr(pretext.npid, "PART", part)
    expected = by_numpy(OWN.numpy(), BANK.numpy(), 0.07)
    assert float(instance_loss(OWN, BANK, PLACES, 0.07)) == pytest.approx(expected, rel=1e-12)
    asking = OWN.clone().requires_grad_()
    loss = lambda own: instance_loss(own, BANK, PLACES, 0.07)  # noqa: E731
    assert torch.autograd.gradcheck(loss, asking, eps=1e-6, atol=1e-7)


def test_lightlys_loss_before_a_queue_is_that_of_a_bank_without_the_image() -> None:
    """Theirs is InfoNCE before keys of others: the bank's other entries."""
    loss = pytest.importorskip("lightly.loss", reason="lightly is an oracle, and not installed")
    others, place = torch.cat([BANK[:3], BANK[4:]]), torch.tensor([3])
    theirs = loss.NTXentLoss(0.07, (len(others), 5))
    theirs.memory_bank.forward = lambda output, labels=None, update=False: (output, others.T)
    asking = [OWN[:1].clone().requires_grad_() for _ in range(2)]
    values = (
        instance_loss(F.normalize(asking[0]), BANK, place, 0.07),
        theirs(asking[1], BANK[3:4]),
    )
    torch.testing.assert_close(values[0], values[1], rtol=1e-9, atol=1e-9)
    found = (torch.autograd.grad(v, rows)[0] for v, rows in zip(values, asking, strict=True))
    torch.testing.assert_close(*found, rtol=1e-7, atol=1e-9)


def task_of(**settings: Any) -> Any:
    toy = {"arch": "timm:test_efficientnet", "image_size": 32, "projector": (8,), "batch_size": 4}
    config = NPIDConfig.model_validate({"recipe": "small", **toy, **settings})
    task: Any = build_pretext("npid", config, HALF, IMAGES)[0].train()
    task.optimizers()
    return task


def images() -> Tensor:
    return torch.randint(256, (BATCH, 3, 36, 36), generator=torch.Generator().manual_seed(0)).byte()


def step_at(indices: Tensor) -> Step:
    random = Randomness(0, 0, torch.arange(BATCH))
    return Step(0, indices, random, lambda loss: loss.backward())


def test_entries_of_images_that_were_seen_move_towards_their_outputs() -> None:
    """Half way, then to unit length; of an image that stands twice the last place counts."""
    task = task_of(lr=1e-9)
    before = task.bank.clone()
    outputs: list[Tensor] = []
    task.projector.register_forward_hook(lambda *given: outputs.append(given[2].detach()))
    task.train_step(images(), step_at(PLACES))
    own = F.normalize(outputs[0])
    for row, place in ((1, 0), (2, 10), (3, 3)):
        expected = F.normalize(0.5 * before[place] + 0.5 * own[row], dim=0)
        torch.testing.assert_close(task.bank[place], expected)
    unseen = [place for place in range(IMAGES) if place not in PLACES]
    assert torch.equal(task.bank[unseen], before[unseen])


def test_the_bank_begins_on_the_sphere_and_follows_from_the_seed() -> None:
    task = task_of()
    assert task.bank.shape == (IMAGES, 8)
    assert task.bank.norm(dim=1) == pytest.approx(torch.ones(IMAGES), abs=1e-6)
    assert torch.equal(task.bank, task_of().bank)
    assert not torch.equal(task.bank, task_of(seed=1).bank)


def test_who_knows_nothing_pays_the_logarithm_of_all_images() -> None:
    """Of outputs that are equally near to all entries."""
    loss = instance_loss(OWN, OWN[:1].expand(IMAGES, -1), PLACES, 0.07)
    assert float(loss) == pytest.approx(np.log(IMAGES))


def test_views_are_the_released_codes() -> None:
    """Some are grey but for the jitter's hue, none has its own colours, all are within range."""
    pixels = images().repeat(8, 1, 1, 1)
    random = Randomness(0, 0, torch.arange(len(pixels)))
    seen = view(pixels, 32, random)
    assert seen.shape == (32, 3, 32, 32)
    assert 0 <= float(seen.min()) < float(seen.max()) <= 1
    colourless = (seen.amax(1) - seen.amin(1)).amax((1, 2)) < 1e-5
    assert colourless.sum() == (random.uniform("grey") < 0.2).sum() > 0


def test_the_rate_falls_after_epochs_120_and_160_of_200() -> None:
    rates = [rate_factor("npid", epoch, 200) for epoch in (0, 119, 120, 159, 160, 199)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_it_learns_to_tell_few_images_apart() -> None:
    task = task_of(lr=1.0)
    found = [float(task.train_step(images(), step_at(torch.arange(4)))["loss"]) for _ in range(30)]
    assert found[0] > 1.5
    assert found[-1] < 0.5
