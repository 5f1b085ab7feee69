"""The AlexNet era's linear probe: what it learns, what stays frozen, what depends on nothing."""

import colorsys
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from eval.networks import linear_heads
from eval.networks.learner import Learner
from eval.networks.linear_heads import Frozen, Head, LinearHeads, resize
from eval.zhang16 import Zhang16, Zhang16Config
from helpers.interrupted import interrupted_at
from helpers.refusals import SCENES, TOY, fails
from helpers.subjects import subject as alexnet
from ssl_bench import catalogue
from ssl_bench.counter import generator
from ssl_bench.data.store.squares import ImageStore, Index, open_store
from ssl_bench.data.string_array import StringArray
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.errors import DataError
from ssl_bench.evaluation.harness import Outcome
from ssl_bench.runtime import Runtime
from ssl_bench.training.loop import Interrupted
from ssl_bench.training.schedule import rate_factor

LAYERS = ("conv2", "conv5")
QUICK = Zhang16Config(epochs=2, batch_size=20)  # 6 steps


@pytest.fixture(scope="module")
def stores():
    data = catalogue.dataset("scenes:train=60,test=30")
    return [open_store(data, split, 64, workers=0) for split in ("train", "test")]


def subject(store, layers=LAYERS):
    return alexnet(store.normalization, *layers)


def probed(config, tested, stores, folder: Path) -> dict[str, Outcome]:
    """{layer: Outcome}, with a folder for each layer."""
    folders = {layer: folder / layer for layer in tested.layers}
    for place in folders.values():
        place.mkdir(parents=True, exist_ok=True)
    train, test = stores
    return dict(
        Zhang16(config).evaluate(
            tested, {"train": train, "test": test}, Runtime(workers=0), folders
        )
    )


def top1(outcome):
    return Zhang16(QUICK).score(outcome.predictions)["top1"]


def predicted(outcome):
    return outcome.predictions["predicted"].tolist()


def lasting(outcome):
    """What the record says of the choice, less the speed."""
    return {k: v for k, v in outcome.selection.items() if k != "images_per_second"}


# ---- what a head sees
def test_maps_are_resized_to_the_fields_grid_by_bilinear_interpolation():
    maps = torch.randn(2, 96, 55, 55)
    found = resize(maps, 9600)
    assert found.shape == (2, 96, 10, 10)
    # The middle of the first of ten cells of 5.5 pixels is 2.75, pixel centres are at 0.5, 1.5, …
    assert torch.allclose(found[..., 0, 0], at(maps, 2.25), atol=1e-5)
    assert torch.allclose(found[..., 1, 1], at(maps, 7.75), atol=1e-5)
    assert torch.equal(resize(maps[..., :10, :10], 9600), maps[..., :10, :10])
    assert torch.equal(resize(maps[..., :3, :3], 9600), maps[..., :3, :3])


def at(maps, place):
    """The bilinear value at (place, place), by hand."""
    low = int(place)
    f = place - low
    a, b = maps[..., low, low : low + 2], maps[..., low + 1, low : low + 2]
    row = (1 - f) * a + f * b
    return (1 - f) * row[..., 0] + f * row[..., 1]


def test_a_head_levels_channels_and_is_linear():
    head = Head(4, 3, 5, generator(0, "head", "conv1"))
    assert [name for name, _ in head.named_parameters()] == ["linear.weight", "linear.bias"]
    assert float(head.linear.weight.detach().std()) == pytest.approx(0.01, rel=0.15)
    assert not head.linear.bias.any()
    maps = torch.randn(8, 4, 3, 3) * torch.tensor([1.0, 10, 100, 1e3])[:, None, None] + 7
    mean, var = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), keepdim=True, correction=0)
    levelled = (maps - mean) / (var + 1e-5).sqrt()
    expected = F.linear(levelled.flatten(1), head.linear.weight, head.linear.bias)
    assert torch.allclose(head(maps), expected, atol=1e-5)


def test_the_statistics_for_test_images_are_the_average_of_all_batches():
    head = Head(2, 1, 3, generator(0))
    batches = [torch.randn(16, 2, 1, 1) * scale + scale for scale in (1, 2, 6)]
    for batch in batches:
        head(batch)
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches])
    assert head.norm.running_mean is not None
    assert torch.allclose(head.norm.running_mean, means.mean(0), atol=1e-5)


# ---- learning
def coloured(folder: Path, count: int, seed: int) -> ImageStore:
    """Noise around one hue per class: images that no layer can mistake."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 6
    hues = np.array([colorsys.hsv_to_rgb(i / 6, 0.6, 0.6) for i in range(6)])
    noise = random.normal(0, 25, (count, 72, 72, 3))
    pixels = np.clip(255 * hues[labels][:, None, None] + noise, 0, 255).astype(np.uint8)
    folder.mkdir()
    (folder / "images.bin").write_bytes(pixels.tobytes())
    names = StringArray.of(f"{seed}-{i}" for i in range(count))
    index = Index(
        size=72, classes=tuple("abcdef"), names=names, labels=labels, digests=names,
        skipped=[], mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), digest="",
    )  # fmt: skip
    return ImageStore(folder, index)


def test_separable_images_are_learnt(tmp_path):
    """New images of the same classes are nearly always right; after one update they are not."""
    pair = [coloured(tmp_path / name, count, seed) for name, count, seed in
            (("train", 60, 0), ("test", 90, 1))]  # fmt: skip
    config = Zhang16Config(epochs=14, batch_size=12)
    learnt = probed(config, subject(pair[0]), pair, tmp_path / "a")
    assert all(top1(outcome) > 95 for outcome in learnt.values())
    begun = Zhang16Config(epochs=1, batch_size=60, lr=1e-9)
    untrained = probed(begun, subject(pair[0]), pair, tmp_path / "b")
    assert all(top1(outcome) < 60 for outcome in untrained.values())


def test_shuffled_training_labels_fall_to_chance(stores, tmp_path):
    test = open_store(catalogue.dataset("scenes:train=60,test=400"), "test", 64, workers=0)
    train = stores[0]
    labels = np.random.default_rng(0).permutation(train.labels).tolist()
    shuffled = ImageStore(train.folder, train.index.model_copy(update={"labels": labels}))
    config = Zhang16Config(epochs=14, batch_size=20)
    found = probed(config, subject(train), (shuffled, test), tmp_path)
    for outcome in found.values():
        assert 5 < top1(outcome) < 15  # chance is 10; ±4.5 is three standard errors of 400 images


def test_test_labels_do_not_reach_the_predictions(stores, tmp_path):
    train, test = stores
    labels = test.index.labels[::-1]
    swapped = ImageStore(test.folder, test.index.model_copy(update={"labels": labels}))
    first, second = (
        probed(QUICK, subject(train), (train, other), tmp_path / name)
        for name, other in (("a", test), ("b", swapped))
    )
    assert [predicted(o) for o in first.values()] == [predicted(o) for o in second.values()]


def test_the_seed_draws_the_heads_and_the_crops(stores, tmp_path):
    drawn = [
        probed(Zhang16Config(epochs=2, batch_size=20, seed=seed), subject(stores[0]), stores, place)
        for seed, place in ((0, tmp_path / "a"), (0, tmp_path / "b"), (1, tmp_path / "c"))
    ]
    first, again, other = drawn
    assert lasting(first["conv2"]) == lasting(again["conv2"])
    assert lasting(first["conv2"]) != lasting(other["conv2"])


def test_the_learning_rate_falls_three_times(stores, tmp_path, monkeypatch):
    """A tenth after 2/7, 4/7 and 6/7; twice as much for biases, which do not decay."""
    rates, plain = [], Learner.train_step

    def noting(self, images, step):
        rates.append([group["lr"] for group in self.optimizer.param_groups])
        assert [g["weight_decay"] for g in self.optimizer.param_groups] == [5e-4, 0]
        assert [len(g["params"]) for g in self.optimizer.param_groups] == [2, 2]
        return plain(self, images, step)

    monkeypatch.setattr(Learner, "train_step", noting)
    config = Zhang16Config(epochs=7, batch_size=30)  # 14 steps
    found = probed(config, subject(stores[0]), stores, tmp_path)
    expected = [0.01] * 4 + [1e-3] * 4 + [1e-4] * 4 + [1e-5] * 2
    assert [weight for weight, _ in rates] == pytest.approx(expected)
    assert [bias for _, bias in rates] == pytest.approx([2 * rate for rate in expected])
    assert found["conv5"].selection["decays"] == [4, 8, 12]


def test_the_schedule_of_goyal_et_al():
    factors = [rate_factor("step", step, 140_000) for step in (0, 39_999, 40_000, 79_999, 80_000)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    late = [rate_factor("step", step, 140_000) for step in (119_999, 120_000, 139_999)]
    assert late == pytest.approx([0.01, 0.001, 0.001])


def test_epochs_become_updates(stores, tmp_path):
    found = probed(Zhang16Config(epochs=2, batch_size=50), subject(stores[0]), stores, tmp_path)
    selection = lasting(found["conv5"])
    assert selection.pop("final_loss") > 0
    assert selection == {
        "split": "none: nothing is chosen",
        "epochs": 2,
        "steps": 3,  # 120 images in batches of 50
        "decays": [1, 2, 3],
        "dimensions": 26 * 3 * 3,
    }


# ---- frozen
def test_the_encoder_stays_as_it_was(stores, tmp_path):
    tested = subject(stores[0])
    tested.encoder.train()
    conv5: Any = tested.encoder.conv5
    conv5.append(torch.nn.BatchNorm2d(26))  # statistics that training would move
    before = weights_digest(tested.encoder.state_dict())
    probed(QUICK, tested, stores, tmp_path)
    assert weights_digest(tested.encoder.state_dict()) == before
    assert tested.encoder.training
    assert all(p.requires_grad and p.grad is None for p in tested.encoder.parameters())


def test_the_loop_cannot_wake_the_encoder(stores):
    frozen = Frozen(subject(stores[0]), 9600)
    heads = LinearHeads(frozen.shapes(), 10, 0)
    learner = linear_heads.learner(frozen, heads, stores[0].labels, 0.01)
    learner.train()
    assert heads.training
    assert not frozen.encoder.training
    assert not any(p.requires_grad for p in frozen.encoder.parameters())
    assert all(name.startswith("network.each.") for name in learner.state_dict())


def test_values_that_are_not_finite_name_the_layer_before_training(stores, tmp_path):
    tested = subject(stores[0])
    with torch.no_grad():
        tested.encoder.conv5[0].bias[0] = float("nan")  # type: ignore[index,union-attr]
    with pytest.raises(DataError, match="layer conv5 gives values that are not finite"):
        probed(QUICK, tested, stores, tmp_path)
    assert not list(tmp_path.glob("*/*/log.jsonl"))


def test_test_images_are_central_crops_with_the_averaged_statistics(stores, tmp_path, monkeypatch):
    """A head's predictions, made again one image at a time: batches do not matter."""
    train, test = stores
    kept, plain = [], linear_heads.predict

    def noting(frozen, heads, images):
        kept.append((frozen, heads))
        return plain(frozen, heads, images)

    monkeypatch.setattr(linear_heads, "predict", noting)
    found = probed(QUICK, subject(train), stores, tmp_path)
    frozen, heads = kept[0]
    assert not heads.training
    with torch.no_grad():
        for i in (0, 7, 29):
            crop = test.images(np.array([i]))[..., 4:68, 4:68]  # centre of 72
            logits = heads(frozen(crop))
            assert [int(x.argmax()) for x in logits] == [predicted(o)[i] for o in found.values()]


# ---- together, alone, interrupted
def test_layers_trained_together_learn_what_each_learns_alone(stores, tmp_path):
    together = probed(QUICK, subject(stores[0]), stores, tmp_path / "both")
    for layer in LAYERS:
        alone = probed(QUICK, subject(stores[0], (layer,)), stores, tmp_path / layer)[layer]
        assert predicted(alone) == predicted(together[layer])
        assert lasting(alone) == lasting(together[layer])


def test_a_stopped_run_continues_to_the_same_numbers(stores, tmp_path):
    whole = probed(QUICK, subject(stores[0]), stores, tmp_path / "whole")
    with interrupted_at(3, Learner), pytest.raises(Interrupted):
        probed(QUICK, subject(stores[0]), stores, tmp_path / "cut")
    (checkpoint,) = (tmp_path / "cut").glob(f"{LAYERS[-1]}/*/checkpoint.pt")
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["step"] == 4
    # The encoder is not in it.
    assert all(name.startswith("network.each.") for name in saved["task"])
    again = probed(QUICK, subject(stores[0]), stores, tmp_path / "cut")
    for layer in LAYERS:
        assert predicted(again[layer]) == predicted(whole[layer])
        assert lasting(again[layer]) == lasting(whole[layer])
    assert not checkpoint.exists()
    lines = (checkpoint.parent / "log.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_run_of_other_layers_leaves_a_checkpoint_alone(stores, tmp_path):
    """Stopped with two layers, asked for one of them, then for both again."""
    with interrupted_at(2, Learner), pytest.raises(Interrupted):
        probed(QUICK, subject(stores[0]), stores, tmp_path)
    probed(QUICK, subject(stores[0], ("conv2",)), stores, tmp_path)
    (checkpoint,) = tmp_path.glob(f"{LAYERS[-1]}/*/checkpoint.pt")
    assert torch.load(checkpoint, weights_only=True)["step"] == 3


# ---- requests
def test_one_class_is_refused_before_anything_is_computed(stores):
    train, test = stores
    for labels, words in (([0] * 60, "hold 1 class"), ([[1, 0]] * 60, "several labels each")):
        store = ImageStore(train.folder, train.index.model_copy(update={"labels": labels}))
        with pytest.raises(DataError, match=words):
            Zhang16(QUICK).check({"train": store, "test": test})


def test_the_command_and_the_settings_that_are_not_its_own(bench, workspace):
    bench.ok("pretrain", "random", *TOY, *SCENES, "--workspace", workspace)
    place = (*SCENES, "--workers", "0", "--workspace", workspace)
    probe = ("linear-probe", "--protocol", "zhang16")
    layers = ("--layer", "conv3", "--layer", "pool5")
    result = bench.ok(*probe, "--epochs", "1", *layers, *place)
    assert "linear/zhang16@1 epochs=1" in result.out
    records = [json.loads(p.read_text()) for p in workspace.glob("evaluation/*/record.json")]
    assert sorted(r["identity"]["layer"] for r in records) == ["conv3", "pool5"]
    assert not list(workspace.rglob("checkpoint.pt"))
    again = bench(*probe, "--epochs", "1", *layers, *place)
    assert again.out == result.out
    fails(bench(*probe, "--strengths", "5", *place), 2, "--strengths", "linear/zhang16@1")
    fails(bench("linear-probe", "--epochs", "5", *place), 2, "--epochs", "linear/logreg@1")
    fails(bench(*probe, "--batch-size", "1", *place), 2, "--batch-size")
    fails(bench(*probe, "--epochs", "0", *place), 2, "--epochs")
