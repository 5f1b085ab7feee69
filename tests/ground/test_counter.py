"""Counter-based randomness: known outputs, independence of batches, devices and history."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats

from ssl_bench.counter import (
    Ahead,
    Randomness,
    StepNumbers,
    batch_indices,
    derive,
    epoch_order,
    splitmix64,
)

# The reference generator's first outputs for seed 1234567 (Vigna's splitmix64.c, as printed by
# many independent implementations).
REFERENCE = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


def test_splitmix64_gives_the_published_sequence():
    outputs = splitmix64(1234567, torch.arange(5))
    assert [value % 2**64 for value in outputs.tolist()] == REFERENCE


def test_an_image_draws_the_same_numbers_in_any_share_of_the_batch():
    whole = Randomness(3, 7, torch.arange(8)).uniform("crop", 5, 2)
    parts = [Randomness(3, 7, torch.arange(i, i + 2)).uniform("crop", 5, 2) for i in (0, 2, 4, 6)]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize("other", [(4, 7, "crop"), (3, 8, "crop"), (3, 7, "flip")])
def test_seed_step_and_stream_each_give_other_numbers(other):
    seed, step, stream = other
    first = Randomness(3, 7, torch.arange(8)).uniform("crop", 64)
    second = Randomness(seed, step, torch.arange(8)).uniform(stream, 64)
    assert (first == second).float().mean() < 0.01


def test_views_have_numbers_of_their_own_in_any_share_of_the_batch():
    random = Randomness(3, 7, torch.arange(8))
    views = [random, random.view("one"), random.view("two"), random.view("one").view("two")]
    drawn = [view.uniform("crop", 64) for view in views]
    for first, second in combinations(drawn, 2):
        assert (first == second).float().mean() < 0.01
    assert torch.equal(drawn[1], Randomness(3, 7, torch.arange(8)).view("one").uniform("crop", 64))
    part = Randomness(3, 7, torch.arange(4, 8)).view("one").uniform("crop", 64)
    assert torch.equal(drawn[1][4:], part)


def test_numbers_without_a_view_are_those_of_before_there_were_views():
    found = Randomness(3, 7, torch.arange(2)).uniform("crop", 2)
    bits = splitmix64(derive(3, "crop", 7), torch.arange(4)).tolist()
    assert found.flatten().tolist() == [(b % 2**64 >> 40) / 2**24 for b in bits]


def test_numbers_are_uniform_and_uncorrelated_between_neighbours():
    u = Randomness(0, 0, torch.arange(200)).uniform("x", 200)
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 1e-3
    for a, b in ((u[1:], u[:-1]), (u[:, 1:], u[:, :-1])):
        assert abs(np.corrcoef(a.flatten(), b.flatten())[0, 1]) < 0.02


def test_dropout_keeps_the_mean_and_drops_the_share():
    x = torch.ones(64, 32, 6, 6)
    y = Randomness(0, 0, torch.arange(64)).dropout(x, 0.5)
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert abs(float((y == 0).float().mean()) - 0.5) < 0.01
    assert not torch.equal(y[0], y[1])


def test_every_epoch_visits_every_image_once_also_across_batches():
    size, batch = 10, 4
    visits = [batch_indices(5, s, torch.arange(batch), batch, size) for s in range(5)]
    flat = torch.cat(visits).tolist()  # 20 visits: two epochs, the third batch holds both
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert flat[:10] != flat[10:]
    assert flat[:10] == epoch_order(5, 0, size).tolist()


def test_a_share_of_the_batch_names_the_same_images():
    whole = batch_indices(1, 9, torch.arange(6), 6, 100)
    assert torch.equal(whole[4:], batch_indices(1, 9, torch.tensor([4, 5]), 6, 100))


def test_keys_do_not_run_into_each_other():
    assert derive("a", "bc") != derive("ab", "c")
    assert derive(1, 23) != derive(12, 3)


def test_numbers_drawn_ahead_are_those_that_a_step_draws():
    positions = torch.arange(4, 8)
    ahead = Ahead(3, positions)
    for step in range(4):
        read = ahead.draw(step)
        random = Randomness(3, step, positions, drawn=StepNumbers(ahead, read, positions))
        if step == 2:
            ahead.asked["later", 3] = None  # what another step asks for while this one is read
        own = Randomness(3, step, positions)
        for stream, shape in (("crop", (3,)), ("mask", (5, 2)), ("one", ())):
            assert torch.equal(random.uniform(stream, *shape), own.uniform(stream, *shape))
        one, own = random.view("v"), own.view("v")
        assert torch.equal(one.uniform("crop", 3), own.uniform("crop", 3))
        assert read.shape == (4, [0, 17, 17, 20][step])
    random = Randomness(3, 4, positions, drawn=StepNumbers(ahead, ahead.draw(4), positions))
    large = random.uniform("large", Ahead.LARGEST // 4 + 1)
    assert torch.equal(large, Randomness(3, 4, positions).uniform("large", large.shape[1]))
    assert ("large", large.shape[1]) not in ahead.asked


def test_a_part_of_a_batch_draws_its_own_numbers():
    positions = torch.arange(4)
    ahead = Ahead(0, positions)
    ahead.asked["crop", 3] = None
    drawn = StepNumbers(ahead, ahead.draw(0), positions)
    part = Randomness(0, 0, positions[2:], drawn=drawn).uniform("crop", 3)
    assert torch.equal(part, Randomness(0, 0, positions).uniform("crop", 3)[2:])
