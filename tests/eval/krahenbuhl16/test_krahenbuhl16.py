"""Classification by fine-tuning with fresh fc6-fc8: windows, loss, solver, network, scores."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch.nn import functional as F

from eval.krahenbuhl16 import CLIP, Krahenbuhl16, Krahenbuhl16Config
from eval.networks.fc678 import Classifier, cross_entropy
from eval.networks.learner import Learner
from helpers.krahenbuhl16 import PLAIN, QUICK, image, network, tuned
from helpers.subjects import subject
from ssl_bench.counter import Randomness, derive
from ssl_bench.encoders.build import EncoderSpec, build_encoder
from ssl_bench.evaluation.harness import score_with_intervals
from ssl_bench.evaluation.metrics.precision import mean_average_precision
from ssl_bench.training.augment import random_scale_crop
from ssl_bench.training.pretext import Step
from ssl_bench.training.schedule import rate_factor


# ---- windows
def reference(image, size, u, scales=(0.5, 2.0)):
    """One window of one image (h, w, 3), pixel by pixel, from its four random numbers."""
    height, width = image.shape[:2]
    largest = min(scales[1], height / size, width / size)
    smallest = min(scales[0], largest)
    scale = smallest + u[0] * (largest - smallest)
    top, left = u[1] * (height - scale * size), u[2] * (width - scale * size)
    window = np.empty((size, size, 3))
    for i in range(size):
        for j in range(size):
            y = min(max(top + scale * (i + 0.5) - 0.5, 0), height - 1)
            x = min(max(left + scale * (j + 0.5) - 0.5, 0), width - 1)
            y0, x0 = min(int(y), height - 2), min(int(x), width - 2)
            f, g = y - y0, x - x0
            (a, b), (c, d) = image[y0 : y0 + 2, x0 : x0 + 2].astype(float)
            window[i, j] = (1 - f) * ((1 - g) * a + g * b) + f * ((1 - g) * c + g * d)
    return window[:, ::-1] if u[3] < 0.5 else window


def test_windows_are_those_of_a_loop_over_pixels(pictures):
    store, random = pictures(12), Randomness(3, 5, torch.arange(12))
    found = random_scale_crop(
        store.images(np.arange(12)), torch.from_numpy(store.sizes), 24, random
    )
    assert found.shape == (12, 3, 24, 24)
    draws = random.uniform("scale-crop", 4).double().numpy()
    for i, window, u in zip(range(12), found, draws, strict=True):
        expected = reference(image(store, i), 24, u).transpose(2, 0, 1)
        assert np.abs(window.numpy() - expected).max() < 0.05


def ramp(height, width, padded):
    """Red is the row, green the column, blue is full inside; the padding is empty."""
    image = torch.zeros(1, 3, padded, padded)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image[0, :, :height, :width] = torch.stack([y, x, torch.full_like(y, 255)]).float()
    return image


@pytest.mark.parametrize(
    ("height", "width", "low", "high"),
    [(200, 150, 0.5, 2.0), (75, 200, 0.5, 1.5), (40, 60, 0.5, 0.8), (20, 30, 0.4, 0.4)],
)
def test_scales_and_places_stay_within_bounds(height, width, low, high):
    """Windows of 50 px, of images larger and smaller: read off pictures of their coordinates."""
    count, size = 400, 50
    images = ramp(height, width, 220).expand(count, -1, -1, -1)
    random = Randomness(0, 0, torch.arange(count))
    found = random_scale_crop(images, torch.tensor([[height, width]] * count), size, random)
    assert found[:, 2].min() > 254.9  # no padding
    rows, columns = found[:, 0, :, size // 2], found[:, 1, size // 2]  # (B, S)
    inner = slice(size // 4, -size // 4)  # away from the edges, where there is no neighbour
    scale = (rows[:, inner].diff(dim=1)).mean(1)
    assert scale.min() > low - 1e-3
    assert scale.max() < high + 1e-3
    step = columns[:, inner].diff(dim=1).mean(1)
    assert torch.allclose(step.abs(), scale, atol=1e-3)  # as wide as high
    assert 160 < int((step < 0).sum()) < 240  # mirrored half of the time
    centre = rows[:, size // 2 - 1 : size // 2 + 1].mean(1) + 0.5
    assert ((centre - size * scale / 2) > -0.01).all()
    assert ((centre + size * scale / 2) < height + 0.01).all()
    if high > low:
        assert scale.mean() == pytest.approx((low + high) / 2, abs=0.1 * (high - low))
        assert centre.std() > 0.1 * (height - size * low)


def test_windows_do_not_depend_on_the_padding_or_the_share_of_the_batch(pictures):
    store = pictures(8)
    sizes, images = torch.from_numpy(store.sizes), store.images(np.arange(8))
    whole = random_scale_crop(images, sizes, 32, Randomness(0, 1, torch.arange(8)))
    wider = F.pad(images, (0, 40, 0, 7), value=200)
    part = random_scale_crop(wider[2:5], sizes[2:5], 32, Randomness(0, 1, torch.arange(2, 5)))
    assert torch.allclose(whole[2:5], part, atol=0.05)


# ---- loss
def test_difficult_classes_count_nothing_and_the_rest_is_summed():
    scores = torch.tensor([[0.0, 2.0, -1.0], [1.0, 0.0, 3.0]], requires_grad=True)
    targets = torch.tensor([[1, 0, -1], [-1, -1, 1]], dtype=torch.int8)
    loss = cross_entropy(scores, targets)
    by_hand = np.log(2) + np.log(1 + np.exp(2)) + np.log(1 + np.exp(-3))
    assert float(loss.detach()) == pytest.approx(by_hand / 2)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad[0, 2] == 0
    assert scores.grad[1, :2].tolist() == [0, 0]
    assert float(scores.grad[0, 0]) == pytest.approx(-0.25)


def test_one_label_each_is_softmax():
    scores, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    by_hand = -scores.double().softmax(1)[range(4), labels].log().mean()
    assert float(cross_entropy(scores, labels)) == pytest.approx(float(by_hand))


# ---- solver
def learner(pictures) -> Learner:
    return Krahenbuhl16(QUICK).learner(network(), pictures(8, several=True), subject(PLAIN).spec)


def step(index=0, backward=torch.Tensor.backward) -> Step:
    return Step(index, torch.arange(8), Randomness(0, index, torch.arange(8)), backward)


def test_biases_learn_at_twice_the_rate_and_all_decays(pictures):
    task = learner(pictures)
    (sgd,) = task.optimizers()
    weights, biases = sgd.param_groups
    assert (weights["lr"], biases["lr"]) == (1e-3, 2e-3)
    assert len(weights["params"]) == len(biases["params"]) == 8  # conv1-5, fc6-8
    assert all(p.ndim > 1 for p in weights["params"])
    assert all(p.ndim == 1 for p in biases["params"])
    for group in sgd.param_groups:
        assert (group["momentum"], group["weight_decay"]) == (0.9, 1e-6)
        assert not group["nesterov"]


def test_the_rate_halves_after_each_10k_of_80k():
    steps = [0, 9_999, 10_000, 19_999, 20_000, 69_999, 70_000, 79_999]
    factors = [rate_factor("halve", s, 80_000) for s in steps]
    assert factors == [1, 1, 0.5, 0.5, 0.25, 2**-6, 2**-7, 2**-7]
    assert [rate_factor("halve", s, 24) for s in (2, 3, 21)] == [1, 0.5, 2**-7]


def test_the_loop_sets_the_rates(pictures, tmp_path, monkeypatch):
    rates, plain = [], Learner.train_step

    def noting(self, images, step):
        rates.append([group["lr"] for group in self.optimizer.param_groups])
        return plain(self, images, step)

    monkeypatch.setattr(Learner, "train_step", noting)
    store = pictures(8)
    tuned(Krahenbuhl16Config(steps=16, batch_size=2, head=8), store, store, tmp_path)
    expected = [1e-3 / 2 ** (i // 2) for i in range(16)]
    assert [weight for weight, _ in rates] == pytest.approx(expected)
    assert [bias for _, bias in rates] == pytest.approx([2 * rate for rate in expected])


def test_a_long_gradient_is_shortened_as_a_whole():
    weights = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))]
    sgd = torch.optim.SGD([{"params": weights[:1], "lr": 1.0}, {"params": weights[1:], "lr": 2.0}])
    slopes = torch.tensor([12.0, 16.0, 0.0]), torch.tensor([0.0, 0.0, 15.0])  # of length 25
    loss = sum((s[:2] * weights[0]).sum() + s[2] * weights[1].sum() for s in slopes)
    assert isinstance(loss, torch.Tensor)
    step().update(sgd, loss, clip=CLIP)
    assert weights[0].tolist() == pytest.approx([-4.8, -6.4])
    assert weights[1].tolist() == pytest.approx([-12])
    step().update(sgd, weights[1].sum() * 3, clip=CLIP)  # short enough
    assert weights[1].tolist() == pytest.approx([-18])


def test_the_step_clips_at_ten(pictures):
    task = learner(pictures)
    task.optimizers()
    images = pictures(8, several=True).images(np.arange(8))
    large = step(backward=lambda loss: (1e4 * loss).backward())
    task.train_step(images, large)
    squares = [p.grad.square().sum() for p in task.network.parameters() if p.grad is not None]
    assert float(torch.stack(squares).sum().sqrt()) == pytest.approx(10, rel=1e-4)


@pytest.mark.parametrize(
    ("train", "moving"),
    [("fc8", {"fc8"}), ("fc6-8", {"fc8", "fc67"}), ("all", {"fc8", "fc67", "encoder"})],
)
def test_what_is_not_trained_stays(pictures, train, moving, tmp_path):
    """Also the statistics of an encoder with batch normalisation."""
    tested = subject(PLAIN, "layer2", width=1, arch="timm:resnet10t")
    made = Classifier(tested.encoder, "layer2", 64, 8, 3, 0)
    made.freeze(train)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    store = pictures(8)
    config = QUICK.model_copy(update={"train": train, "lr": 1e-2})
    task = Krahenbuhl16(config).learner(made, store, tested.spec)
    task.optimizers()
    task.train()
    for index in range(3):
        task.train_step(store.images(np.arange(8)), step(index))
    changed = {n.partition(".")[0] for n, t in made.state_dict().items() if not t.equal(before[n])}
    assert changed == moving
    assert made.encoder.training == (train == "all")
    assert made.fc67.training


# ---- the network
def test_fresh_layers_are_the_sources():
    made = network(head=200, classes=20)
    for layer in (made.fc67.fc6, made.fc67.fc7, made.fc8):
        assert isinstance(layer, torch.nn.Linear)
        assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
        assert (layer.bias == 0.1).all()
    assert made.fc67.drop6.p == made.fc67.drop7.p == 0.5  # type: ignore[union-attr]
    again, other = network(head=200, classes=20), network(head=200, classes=20, seed=1)
    assert torch.equal(again.fc8.weight, made.fc8.weight)
    assert not torch.equal(other.fc8.weight, made.fc8.weight)


def test_alexnets_pool5_reaches_fc6_whole_and_larger_maps_are_pooled():
    encoder = build_encoder(EncoderSpec(arch="alexnet", image_size=227, normalization=PLAIN))
    sizes = [Classifier(encoder, layer, 227, 4, 2, 0).fc67.fc6 for layer in ("pool5", "conv5")]
    assert [fc6.in_features for fc6 in sizes] == [9216, 9216]  # type: ignore[union-attr]
    maps = torch.rand(1, 256, 6, 6)
    flat = Classifier(encoder, "pool5", 227, 4, 2, 0).fc67[:2](maps)
    assert torch.equal(flat, maps.flatten(1))


# ---- scores
def scores_of(made, store, **settings):
    harness = Krahenbuhl16(QUICK.model_copy(update=settings))
    return harness.rows(made, store, subject(PLAIN).spec)


def test_scores_are_the_mean_of_ten_windows_by_hand(pictures):
    """Made again image by image and window by window, without dropout."""
    store, made, spec = pictures(40), network(), subject(PLAIN).spec
    found = scores_of(made, store, crops=10, seed=7)
    assert not made.fc67.training
    with torch.no_grad():
        for i in (0, 31, 32, 39):  # around a batch's end
            image, room = store.images(np.array([i])), torch.from_numpy(store.sizes[[i]])
            scores = []
            for crop in range(10):
                random = Randomness(derive(7, "test windows"), crop, torch.tensor([i]))
                window = random_scale_crop(image, room, 64, random)
                scores.append(made(spec.normalization.apply(window))[0])
            assert np.allclose(found[i], torch.stack(scores).mean(0), atol=1e-5)
    assert not np.allclose(found, scores_of(made, store, crops=1, seed=7))
    assert not np.allclose(found, scores_of(made, store, crops=10, seed=8))


@pytest.mark.parametrize("seed", range(5))
def test_the_headline_is_scikit_learns_average_precision(seed):
    random = np.random.default_rng(seed)
    targets = random.choice([-1, 0, 1], p=[0.1, 0.6, 0.3], size=(90, 4)).astype(np.int8)
    scores = np.round(random.normal(size=(90, 4)) + targets, 1)  # with ties
    expected = [
        100 * average_precision_score(t[t != -1], s[t != -1])
        for t, s in zip(targets.T, scores.T, strict=True)
    ]
    predictions = {"targets": targets, "scores": scores}
    found = score_with_intervals(Krahenbuhl16(QUICK), predictions)
    assert found["map_uninterpolated"] == pytest.approx(np.mean(expected))
    assert found["map_uninterpolated_low"] < np.mean(expected) < found["map_uninterpolated_high"]
    others = mean_average_precision(targets, scores)
    assert {name: found[name] for name in others} == others
    assert found["map_uninterpolated"] <= found["map"]
