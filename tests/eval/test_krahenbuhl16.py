"""Classification by fine-tuning with fresh fc6-fc8: windows, loss, solver, scores, requests."""

import json
import signal
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch.nn import functional as F

from eval.fc678 import Classifier, Train
from eval.krahenbuhl16 import (
    CLIP,
    Krahenbuhl16,
    Krahenbuhl16Config,
    Learner,
    cross_entropy,
    few_with_each,
    predict,
)
from helpers.photos import draw_photo
from helpers.refusals import SCENES, fails, only
from helpers.voc_folders import annotate, thing, write_list
from ssl_bench import catalogue
from ssl_bench.augment import random_scale_crop
from ssl_bench.counter import Randomness, derive
from ssl_bench.data.packing import WholeIndex
from ssl_bench.data.whole import WholeStore
from ssl_bench.encoders import EncoderSpec, Normalization, build_encoder, initialize, weights_digest
from ssl_bench.errors import DataError, UsageError
from ssl_bench.metrics import mean_average_precision
from ssl_bench.runtime import Runtime
from ssl_bench.task import Outcome, Step, Subject
from ssl_bench.train import Interrupted, _factor

COLOURS = np.array([[230, 30, 30], [30, 230, 30], [30, 30, 230]])
PLAIN = Normalization(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
QUICK = Krahenbuhl16Config(steps=6, batch_size=8, head=32, crops=2)


@pytest.fixture
def pictures(tmp_path):
    """A function that makes a store of noisy images of 70 to 100 px in three classes.

    An image has its class's colour; with `several`, stripes of each of its classes' colours.
    """
    numbers = count()

    def make(images: int, seed: int = 0, several: bool = False) -> WholeStore:
        random = np.random.default_rng(seed)
        labels = np.arange(images) % 3
        targets = (random.random((images, 3)) < 0.4).astype(np.int8)
        pixels = []
        for label, present in zip(labels, targets, strict=True):
            image = np.full((*random.integers(70, 100, 2), 3), 128.0)
            for c in np.flatnonzero(present) if several else [label]:
                image[:, c :: 6 if several else 1] = COLOURS[c]
            noisy = image + random.normal(0, 15, image.shape)
            pixels.append(np.clip(noisy, 0, 255).astype(np.uint8))
        return stored(tmp_path / f"store{next(numbers)}", pixels, targets if several else labels)

    return make


def stored(folder: Path, pixels: list[np.ndarray], annotations: np.ndarray) -> WholeStore:
    folder.mkdir()
    (folder / "images.bin").write_bytes(b"".join(image.tobytes() for image in pixels))
    names = [str(i) for i in range(len(pixels))]
    sizes = [image.shape[:2] for image in pixels]
    index = WholeIndex(
        task="classification", classes=("red", "green", "blue"), names=names,
        labels=annotations.tolist(), digests=names, masks=None, objects=None, originals=sizes,
        sizes=sizes, scales=[1] * len(names), skipped=[], mean=PLAIN.mean, std=PLAIN.std, digest="",
    )  # fmt: skip
    return WholeStore(folder, index)


def relabelled(images: WholeStore, annotations: np.ndarray) -> WholeStore:
    labels = annotations.tolist()
    return WholeStore(images.folder, images.index.model_copy(update={"labels": labels}))


def image(images: WholeStore, i: int) -> np.ndarray:
    """uint8 (h, w, 3), without padding."""
    return images.images(np.array([i]))[0].permute(1, 2, 0).numpy()


def subject(width=0.1, arch="alexnet", layers=("pool5",)):
    spec = EncoderSpec(arch=arch, image_size=64, width=width, normalization=PLAIN)
    encoder = build_encoder(spec)
    initialize(encoder, "fan-in", 0, "encoder")
    return Subject(encoder, spec, layers)


def tuned(config, train, test, folder: Path, tested=None) -> Outcome:
    folder.mkdir(exist_ok=True)
    harness, tested = Krahenbuhl16(config), tested or subject()
    harness.check(train, test)
    found = harness.evaluate(tested, train, test, Runtime(workers=0), {"pool5": folder})
    return dict(found)["pool5"]


def network(train: Train = "all", classes=3, seed=0, head=16) -> Classifier:
    made = Classifier(subject().encoder, "pool5", 64, head, classes, seed)
    made.freeze(train)
    return made


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
    store = pictures(8, several=True)
    targets = torch.from_numpy(store.annotations)
    return Learner(network(), subject().spec, targets, torch.from_numpy(store.sizes), 1e-3)


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
    factors = [_factor("halve", s / 80_000) for s in steps]
    assert factors == [1, 1, 0.5, 0.5, 0.25, 2**-6, 2**-7, 2**-7]
    assert [_factor("halve", s / 24) for s in (2, 3, 21)] == [1, 0.5, 2**-7]


def test_the_loop_sets_the_rates(pictures, tmp_path, monkeypatch):
    rates, plain = [], Learner.train_step

    def noting(self, images, step):
        rates.append([group["lr"] for group in self.sgd.param_groups])
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
    tested = subject(width=1.0, arch="timm:resnet10t", layers=("layer2",))
    made = Classifier(tested.encoder, "layer2", 64, 8, 3, 0)
    made.freeze(train)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    store = pictures(8)
    sizes, labels = torch.from_numpy(store.sizes), torch.from_numpy(store.labels)
    task = Learner(made, tested.spec, labels, sizes, 1e-2)
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


def test_scores_are_the_mean_of_ten_windows_by_hand(pictures):
    """Made again image by image and window by window, without dropout."""
    store, made, spec = pictures(40), network(), subject().spec
    found = predict(made, spec, store, 10, 7)
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
    assert not np.allclose(found, predict(made, spec, store, 1, 7))
    assert not np.allclose(found, predict(made, spec, store, 10, 8))


@pytest.mark.parametrize("seed", range(5))
def test_the_headline_is_scikit_learns_average_precision(seed):
    random = np.random.default_rng(seed)
    targets = random.choice([-1, 0, 1], p=[0.1, 0.6, 0.3], size=(90, 4)).astype(np.int8)
    scores = np.round(random.normal(size=(90, 4)) + targets, 1)  # with ties
    expected = [
        100 * average_precision_score(t[t != -1], s[t != -1])
        for t, s in zip(targets.T, scores.T, strict=True)
    ]
    found = Krahenbuhl16(QUICK).score({"targets": targets, "scores": scores})
    assert found["map_uninterpolated"] == pytest.approx(np.mean(expected))
    assert found["map_uninterpolated_low"] < np.mean(expected) < found["map_uninterpolated_high"]
    others = mean_average_precision(targets, scores)
    assert {name: found[name] for name in others} == others
    assert found["map_uninterpolated"] <= found["map"]


# ---- learning


def several_top(outcome):
    return Krahenbuhl16(QUICK).score(outcome.predictions)


def test_one_label_each_is_learnt_by_heart(pictures, tmp_path):
    store = pictures(12)
    config = Krahenbuhl16Config(steps=120, batch_size=12, lr=1e-2, head=64, rescale=True)
    learnt = tuned(config, store, store, tmp_path / "a")
    assert several_top(learnt)["top1"] > 95
    begun = tuned(config.model_copy(update={"steps": 1}), store, store, tmp_path / "b")
    assert several_top(begun)["top1"] < 70


def test_several_labels_are_learnt_by_heart(pictures, tmp_path):
    store = pictures(16, several=True)
    config = Krahenbuhl16Config(steps=150, batch_size=16, lr=1e-2, head=64, rescale=True)
    learnt = tuned(config, store, store, tmp_path / "a")
    assert several_top(learnt)["map_uninterpolated"] > 95
    begun = tuned(config.model_copy(update={"steps": 1}), store, store, tmp_path / "b")
    assert several_top(begun)["map_uninterpolated"] < 80
    assert learnt.predictions["scores"].shape == (16, 3)


def test_the_evaluated_encoder_itself_stays_as_it_was(pictures, tmp_path):
    tested, store = subject(), pictures(12)
    before = weights_digest(tested.encoder.state_dict())
    tuned(QUICK, store, store, tmp_path, tested)
    assert weights_digest(tested.encoder.state_dict()) == before
    assert all(p.requires_grad and p.grad is None for p in tested.encoder.parameters())


@pytest.mark.parametrize("several", [False, True])
def test_test_labels_do_not_reach_the_predictions(pictures, several, tmp_path):
    train, test = pictures(12, several=several), pictures(9, 1, several)
    other = relabelled(test, test.annotations[::-1])
    name = "scores" if several else "predicted"
    first, second = (
        tuned(QUICK, train, asked, tmp_path / str(i)).predictions[name]
        for i, asked in enumerate((test, other))
    )
    assert np.array_equal(first, second)


@pytest.mark.parametrize("rescale", [False, True])
def test_a_stopped_run_continues_to_the_same_scores(pictures, rescale, tmp_path, monkeypatch):
    store = pictures(12, several=True)
    config = QUICK.model_copy(update={"rescale": rescale})
    whole = tuned(config, store, store, tmp_path / "whole")
    plain, steps = Learner.train_step, []

    def stopping(self, images, step):
        steps.append(step.index)
        if step.index == 3 and steps.count(3) == 1:
            signal.raise_signal(signal.SIGINT)
        return plain(self, images, step)

    monkeypatch.setattr(Learner, "train_step", stopping)
    with pytest.raises(Interrupted):
        tuned(config, store, store, tmp_path / "cut")
    again = tuned(config, store, store, tmp_path / "cut")
    assert steps == [0, 1, 2, 3, 4, 5]
    assert np.array_equal(again.predictions["scores"], whole.predictions["scores"])
    assert again.selection["final_loss"] == whole.selection["final_loss"]


# ---- rescaling


def test_rescaling_levels_the_rates_and_leaves_the_encoders_function(pictures, tmp_path):
    store, tested = pictures(20, several=True), subject()
    made = Classifier(tested.encoder, "pool5", 64, 32, 3, 0)
    images = PLAIN.apply(torch.rand(4, 3, 64, 64) * 255)
    before = made.encoder(images, ["pool5"])["pool5"].detach()
    kept = made.fc8.weight.clone()
    harness = Krahenbuhl16(QUICK)
    found = harness._rescale(made, tested.spec, store, np.arange(20))
    rates = [value for name, value in found.items() if name.endswith("rate_after")]
    assert len(rates) == 7  # conv1-5, fc6, fc7
    assert max(rates) / min(rates) < 1.05
    after = made.encoder(images, ["pool5"])["pool5"].detach()
    factor = float((after * before).sum() / before.square().sum())
    assert torch.allclose(after, factor * before, atol=0.05 * float(after.abs().max()))
    assert torch.equal(made.fc8.weight, kept)


def test_what_cannot_be_rescaled_is_named(pictures, tmp_path):
    store = pictures(8)
    tested = subject(width=1.0, arch="timm:resnet10t", layers=("pool5",))
    tested = Subject(tested.encoder, tested.spec, ("layer2",))
    harness = Krahenbuhl16(QUICK.model_copy(update={"rescale": True}))
    found = harness.evaluate(tested, store, store, Runtime(workers=0), {"layer2": tmp_path})
    with pytest.raises(UsageError, match=r"timm:resnet10t cannot be rescaled: .*BatchNorm"):
        next(iter(found))


# ---- few labels, requests


def test_few_labels_are_as_many_with_each_class_and_follow_the_seed(pictures):
    targets = pictures(60, several=True).targets
    targets = np.hstack([targets, np.zeros((60, 1), np.int8)])  # a class that no image has
    names = ("a", "b", "c", "d")
    chosen = few_with_each(targets, 4, 0, names)
    assert ((targets[chosen] == 1).sum(0)[:3] >= 4).all()
    assert 4 <= len(chosen) <= 12
    assert sorted(set(chosen.tolist())) == chosen.tolist()
    assert chosen.tolist() == few_with_each(targets, 4, 0, names).tolist()
    assert chosen.tolist() != few_with_each(targets, 4, 1, names).tolist()
    fewest = int((targets == 1).sum(0)[:3].min())
    with pytest.raises(UsageError, match=f"has only {fewest} images"):
        few_with_each(targets, fewest + 1, 0, names)


def test_training_sees_the_few_only(pictures, tmp_path):
    store = pictures(30)
    outcome = tuned(QUICK.model_copy(update={"labels": 2}), store, store, tmp_path)
    assert outcome.selection["training_images"] == 6


def test_labels_that_cannot_be_measured_are_refused(pictures):
    store = pictures(12, several=True)
    harness = Krahenbuhl16(QUICK)

    def check(train, test, **settings):
        made = Krahenbuhl16(QUICK.model_copy(update=settings))
        made.check(relabelled(store, train), relabelled(store, test))

    some, none = store.targets, np.zeros_like(store.targets)
    lone = none.copy()
    lone[0, 1] = 1
    with pytest.raises(DataError, match="hold 1 class"):
        check(lone, some)
    with pytest.raises(DataError, match="there is nothing to find"):
        check(some, none - 1)
    with pytest.raises(DataError, match="class 'blue' is in the test images but not in train"):
        check(some * np.array([1, 1, 0], np.int8), some)
    with pytest.raises(UsageError, match="--labels 12: class 'red' has only"):
        check(some, some, labels=12)
    with pytest.raises(DataError, match="hold 1 class"):
        check(np.zeros(12, np.int64), np.zeros(12, np.int64))
    harness.check(store, store)
    assert (harness.metric, harness.interval) == (
        "map_uninterpolated",
        "over the test images, bootstrap",
    )
    harness.check(pictures(6), pictures(6))
    assert (harness.metric, harness.interval) == ("top1", "over the test images, Wilson's")


def test_deviations_are_named():
    assert Krahenbuhl16Config(precision="32", seed=3).deviations() == []
    other = Krahenbuhl16Config(steps=100, train="fc8", precision="bf16").deviations()
    assert sorted(other) == ["precision=bf16", "steps=100", "train=fc8"]


def test_freezing_is_another_word_for_training_fc6_to_fc8():
    assert Krahenbuhl16Config(freeze=True) == Krahenbuhl16Config(train="fc6-8")
    assert Krahenbuhl16Config(freeze=True, train="fc8").train == "fc8"
    assert "freeze" not in Krahenbuhl16Config(freeze=True).model_dump()


# ---- the command

COMMAND = ("finetune", "--workers", 0)
SHORT = ("--steps", 3, "--batch-size", 4, "--head", 8, "--crops", 2)


def record(workspace: Path) -> dict[str, Any]:
    return json.loads(only(workspace, "evaluation/*/record.json").read_text())


def test_the_command_on_one_label_each(bench, finished):
    place = (*SCENES, "--workspace", finished)
    result = bench(*COMMAND, *SHORT, *place)
    assert result.code == 0, result.err
    assert "finetune/krahenbuhl16@1 steps=3 batch_size=4 head=8 crops=2 pool5" in result.out
    made = record(finished)
    assert made["details"]["metric"] == "top1"
    assert made["details"]["interval"] == "over the test images, Wilson's"
    assert made["details"]["selection"]["training_images"] == 60
    assert not list(finished.rglob("checkpoint.pt"))
    assert bench(*COMMAND, *SHORT, *place).out == result.out  # from the record
    kept = bench(*COMMAND, *SHORT, *place, "--freeze", "--labels", 2, "--rescale")
    assert kept.code == 0, kept.err
    assert " train=fc6-8 labels=2 " in kept.out
    assert "rescale=True" in kept.out


def test_what_the_command_refuses(bench, finished):
    place = (*SCENES, "--workspace", finished)
    fails(bench(*COMMAND, *place, "--train", "fc7"), 2, "--train", "fc6-8")
    fails(bench(*COMMAND, *place, "--dimensions", 9), 2, "--dimensions", "finetune/linear-head@1")
    few = ("finetune", "--protocol", "linear-head", *place)
    fails(bench(*few, "--crops", 3), 2, "--crops", "finetune/krahenbuhl16@1")
    fails(bench(*COMMAND, *place, "--crops", 0), 2, "--crops")
    fails(bench(*COMMAND, *place, "--labels", 50), 2, "--labels 50", "has only 6 images")
    fails(bench(*COMMAND, *place, "--layer", "fc7"), 2, "layer", "fc7")
    assert not list(finished.glob("evaluation/*/log.jsonl"))


@pytest.fixture
def year(tmp_path: Path) -> Path:
    """VOC's layout: train and test of six and four images of 96×80 px; cats are all difficult."""
    root = tmp_path / "VOC2007"
    (root / "JPEGImages").mkdir(parents=True)
    for i in range(10):
        things = [thing("cat", difficult=1)] if i % 3 == 0 else []
        things += [thing("dog")] if i % 2 else [thing("person")]
        annotate(root, f"{i:06}", *things)
        draw_photo(i).save(root / "JPEGImages" / f"{i:06}.jpg")
    for name, images in (("trainval", range(6)), ("test", range(6, 10))):
        write_list(root, name, [f"{i:06}" for i in images])
    return root


def test_the_command_on_several_labels_an_image(bench, finished, year):
    place = ("--data", f"voc:{year},name=mini", "--workspace", finished)
    result = bench(*COMMAND, *SHORT, *place)
    assert result.code == 0, result.err
    assert "finetune/krahenbuhl16@1: map_uninterpolated" in result.out
    made = record(finished)
    kinds = ("map_uninterpolated", "map11", "map")
    assert set(made["metrics"]) == {n + end for n in kinds for end in ("", "_low", "_high")}
    assert made["details"]["metric"] == "map_uninterpolated"
    assert made["details"]["interval"] == "over the test images, bootstrap"
    folder = only(finished, "evaluation/*/record.json").parent
    assert (folder / "precision-recall.png").read_bytes()[:4] == b"\x89PNG"
    assert "precision-recall.png" in made["files"]
    with np.load(folder / "predictions.npz") as kept:
        targets, scores = kept["targets"], kept["scores"]
    classes = catalogue.dataset(f"voc:{year}").split("test").classes
    dog, cat, person = (classes.index(name) for name in ("dog", "cat", "person"))
    assert targets[:, [dog, cat, person]].tolist() == [[0, -1, 1], [1, 0, 0], [0, 0, 1], [1, -1, 0]]
    assert scores.shape == (4, 20)
    expected = np.mean(
        [average_precision_score(targets[:, c], scores[:, c]) for c in (dog, person)]
    )
    assert made["metrics"]["map_uninterpolated"] == pytest.approx(100 * expected)
    fails(bench(*COMMAND, *place, "--labels", 4), 2, "--labels 4", "class 'dog' has only 3 images")


def test_a_damaged_image_is_named_or_left_out(bench, finished, year):
    (year / "JPEGImages" / "000002.jpg").write_bytes(b"no picture")
    place = ("--data", f"voc:{year},name=mini", "--workspace", finished)
    fails(bench(*COMMAND, *SHORT, *place), 1, "000002.jpg", "--skip-bad-images")
    result = bench(*COMMAND, *SHORT, *place, "--skip-bad-images")
    assert result.code == 0, result.err
    assert record(finished)["details"]["selection"]["training_images"] == 5
