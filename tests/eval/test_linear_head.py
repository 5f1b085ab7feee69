"""Few-label fine-tuning: the draw of labels, what changes, what does not."""

import signal
from pathlib import Path

import numpy as np
import pytest

from eval.finetuning import Learner
from eval.linear_head import LinearHead, LinearHeadConfig
from eval.splits import few_labels, held_out
from ssl_bench import catalogue
from ssl_bench.data.store.squares import ImageStore, open_store
from ssl_bench.encoders.build import EncoderSpec, build_encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.errors import DataError
from ssl_bench.evaluation.harness import Subject
from ssl_bench.runtime import Runtime
from ssl_bench.training.loop import Interrupted

QUICK = LinearHeadConfig(labels=3, steps=6, batch_size=8)


@pytest.fixture(scope="module")
def stores():
    data = catalogue.dataset("scenes:train=60,test=30")
    return [open_store(data, split, 64, workers=0) for split in ("train", "test")]


def subject(store, width=0.1):
    spec = EncoderSpec(
        arch="alexnet", image_size=64, width=width, normalization=store.normalization
    )
    encoder = build_encoder(spec)
    initialize(encoder, "fan-in", 0, "encoder")
    return Subject(encoder, spec, ("conv5",))


def tuned(config, tested, train, test, folder: Path, **runtime):
    folder.mkdir(exist_ok=True)
    settings = Runtime(workers=0, **runtime)
    found = LinearHead(config).evaluate(
        tested, {"train": train, "test": test}, settings, {"conv5": folder}
    )
    return dict(found)["conv5"]


def test_few_labels_are_as_many_of_each_class_and_follow_the_seed():
    labels = np.repeat(np.arange(4), 25)
    chosen = few_labels(labels, 5, 0)
    assert np.bincount(labels[chosen]).tolist() == [5, 5, 5, 5]
    assert len(set(chosen.tolist())) == 20
    assert chosen.tolist() == few_labels(labels, 5, 0).tolist()
    assert chosen.tolist() != few_labels(labels, 5, 1).tolist()
    assert len(few_labels(labels[:-20], 9, 0)) == 3 * 9 + 5  # of a class with fewer, all


def test_held_out_images_keep_the_classes_shares_and_leave_the_others():
    labels = np.repeat(np.arange(3), (60, 30, 10))
    fitted, held = held_out(labels, 0.2, 0)
    assert np.bincount(labels[held]).tolist() == [12, 6, 2]
    assert sorted([*fitted, *held]) == list(range(100))


def top1(outcome):
    return LinearHead(QUICK).score(outcome.predictions)["top1"]


def test_the_evaluated_encoder_itself_stays_as_it_was(stores, tmp_path):
    tested = subject(stores[0])
    before = weights_digest(tested.encoder.state_dict())
    outcome = tuned(QUICK, tested, stores[0], stores[1], tmp_path / "a")
    assert weights_digest(tested.encoder.state_dict()) == before
    assert outcome.selection["training_images"] == 30
    assert len(outcome.predictions["predicted"]) == 30


def test_it_learns_its_training_images(stores, tmp_path):
    """Tested on what it was trained on, it is nearly always right; untrained it is at chance."""
    train = stores[0]
    config = LinearHeadConfig(labels=0, steps=150, batch_size=20)
    learnt = tuned(config, subject(train, 0.25), train, train, tmp_path / "a")
    assert top1(learnt) > 85
    begun = tuned(
        LinearHeadConfig(labels=0, steps=1, batch_size=20), subject(train, 0.25), train, train,
        tmp_path / "b",
    )  # fmt: skip
    assert top1(begun) < 40


def test_test_labels_do_not_reach_the_predictions(stores, tmp_path):
    train, test = stores
    labels = test.index.labels[::-1]
    swapped = ImageStore(test.folder, test.index.model_copy(update={"labels": labels}))
    first, second = (
        tuned(QUICK, subject(train), train, other, tmp_path / name).predictions["predicted"]
        for name, other in (("a", test), ("b", swapped))
    )
    assert np.array_equal(first, second)


def test_a_stopped_fine_tuning_continues_to_the_same_predictions(stores, tmp_path, monkeypatch):
    whole = tuned(QUICK, subject(stores[0]), stores[0], stores[1], tmp_path / "whole")
    plain, steps = Learner.train_step, []

    def stopping(self, images, step):
        steps.append(step.index)
        if step.index == 3 and steps.count(3) == 1:
            signal.raise_signal(signal.SIGINT)
        return plain(self, images, step)

    monkeypatch.setattr(Learner, "train_step", stopping)
    with pytest.raises(Interrupted):
        tuned(QUICK, subject(stores[0]), stores[0], stores[1], tmp_path / "cut")
    again = tuned(QUICK, subject(stores[0]), stores[0], stores[1], tmp_path / "cut")
    assert steps == [0, 1, 2, 3, 4, 5]
    assert np.array_equal(again.predictions["predicted"], whole.predictions["predicted"])
    assert again.selection["final_loss"] == whole.selection["final_loss"]


def test_what_cannot_be_learnt_is_refused_before_anything_is_computed(stores):
    train, test = stores
    one = ImageStore(train.folder, train.index.model_copy(update={"labels": [0] * 60}))
    with pytest.raises(DataError, match="hold 1 class"):
        LinearHead(QUICK).check({"train": one, "test": test})


def test_deviations_are_named_and_the_arithmetic_is_one_of_them():
    assert LinearHeadConfig(precision="32", seed=3).deviations() == []
    other = LinearHeadConfig(labels=5, precision="bf16").deviations()
    assert sorted(other) == ["labels=5", "precision=bf16"]
