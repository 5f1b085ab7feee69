"""What holds of every protocol that trains: what stays, what it sees, how it goes on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.detection import FastRCNN, FastRCNNConfig
from eval.krahenbuhl16 import Krahenbuhl16, Krahenbuhl16Config
from eval.linear_head import LinearHead, LinearHeadConfig
from eval.networks.learner import Learner
from eval.segmentation import FCN32s, FCN32sConfig
from eval.zhang16 import Zhang16, Zhang16Config
from helpers.interrupted import interrupted_at
from helpers.subjects import subject
from ssl_bench import catalogue
from ssl_bench.data.normalization import HALF
from ssl_bench.data.store.squares import open_store
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.errors import DataError
from ssl_bench.evaluation.harness import Outcome
from ssl_bench.runtime import Runtime
from ssl_bench.training.loop import Interrupted

SIDES: dict[str, Any] = {"short": 64, "longest": 96}
DETECT: dict[str, Any] = {"steps": 5, "batch_size": 2, "head": 32, "rois": 32, **SIDES}
FINETUNE: dict[str, Any] = {"steps": 5, "batch_size": 8, "head": 32, "crops": 2}
SEGMENT: dict[str, Any] = {"steps": 5, "batch_size": 4, "kernel": 1, "head": 16, **SIDES}
ONCE: dict[str, Any] = {"steps": 1, "freeze": True}
PROTOCOLS: dict[str, Any] = {  # the encoder learns, too
    "detect": FastRCNN(FastRCNNConfig(**DETECT)),
    "detect, rpn": FastRCNN(FastRCNNConfig(**DETECT, proposals="rpn")),
    "segment": FCN32s(FCN32sConfig(**SEGMENT)),
    "finetune": Krahenbuhl16(Krahenbuhl16Config(**FINETUNE)),
    "finetune, several labels": Krahenbuhl16(Krahenbuhl16Config(**FINETUNE, rescale=True)),
    "linear head": LinearHead(LinearHeadConfig(labels=1, steps=5, batch_size=8)),
}
FROZEN: dict[str, Any] = {
    "detect": FastRCNN(FastRCNNConfig(**{**DETECT, **ONCE})),
    "segment": FCN32s(FCN32sConfig(**{**SEGMENT, **ONCE})),
    "finetune": Krahenbuhl16(Krahenbuhl16Config(**{**FINETUNE, **ONCE})),
    "linear head": Zhang16(Zhang16Config(epochs=1, batch_size=20)),
}

Stores = dict[str, Any]  # train and test


def stores_of(harness: Any, labels: str = "") -> Stores:
    """Twelve scenes and five: squares, or whole images with boxes or masks."""
    data = catalogue.dataset("scenes:train=12,test=5")
    spec = subject(HALF).spec
    if isinstance(harness, LinearHead | Zhang16):
        found: Stores = {s: open_store(data, s, 64, workers=0) for s in ("train", "test")}
    else:
        found = {s: harness.open(data, s, spec, workers=0) for s in ("train", "test")}
    if "several" in labels:
        for seed, split in enumerate(found):
            several = np.random.default_rng(seed).random((len(found[split]), 10)) < 0.6
            found[split] = relabelled(found[split], labels=several.astype(int).tolist())
    return found


def relabelled(store: Any, **truth: Any) -> Any:
    return type(store)(store.folder, store.index.model_copy(update=truth))


def measured(harness: Any, stores: Stores, folder: Path, tested: Any = None) -> Outcome:
    """Of an AlexNet's conv5."""
    folder.mkdir(parents=True, exist_ok=True)
    tested, runtime = tested or subject(HALF, "conv5"), Runtime(workers=0)
    return dict(harness.evaluate(tested, stores, runtime, {"conv5": folder}))["conv5"]


def same(one: Outcome, other: Outcome) -> bool:
    return all(np.array_equal(one.predictions[n], other.predictions[n]) for n in one.predictions)


@pytest.fixture(scope="module", autouse=True)
def no_pictures() -> Iterator[None]:
    """Drawing takes longer than all the rest, and is tested with each protocol."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in (FastRCNN, FCN32s, Krahenbuhl16):
            patch.setattr(kind, "draw", lambda *_: None)
        yield


@pytest.fixture(scope="module", params=PROTOCOLS)
def whole(request, tmp_path_factory) -> tuple[str, Any, Stores, Outcome]:
    """Each protocol's name, harness, images, and what it finds undisturbed; the encoder stays."""
    name, harness, tested = request.param, PROTOCOLS[request.param], subject(HALF, "conv5")
    stores, before = stores_of(harness, name), weights_digest(tested.encoder.state_dict())
    found = measured(harness, stores, tmp_path_factory.mktemp("whole"), tested)
    assert weights_digest(tested.encoder.state_dict()) == before
    assert all(p.requires_grad and p.grad is None for p in tested.encoder.parameters())
    return name, harness, stores, found


def test_a_stopped_training_continues_to_the_same_predictions(whole, tmp_path):
    _, harness, stores, outcome = whole
    with interrupted_at(2, Learner) as begun, pytest.raises(Interrupted):
        measured(harness, stores, tmp_path)
    with interrupted_at(-1, Learner) as rest:
        again = measured(harness, stores, tmp_path)
    assert begun + rest == list(range(harness.config.steps))
    assert same(again, outcome)
    ends = {"final_loss", "final_losses"} & outcome.selection.keys()
    assert [again.selection[end] for end in ends] == [outcome.selection[end] for end in ends] != []


@pytest.mark.parametrize(
    "whole", sorted(PROTOCOLS.keys() - {"segment", "detect, rpn"}), indirect=True
)
def test_the_truth_of_the_test_images_does_not_reach_the_predictions(whole, tmp_path):
    """What segmentation predicts is counted against the truth: see test_segmentation.py."""
    _, harness, stores, outcome = whole
    test, truth = stores["test"], {"labels", "objects"}
    turned = {n: rows[::-1] for n, rows in test.index if n in truth and rows is not None}
    other = measured(harness, {**stores, "test": relabelled(test, **turned)}, tmp_path)
    (asked,) = outcome.predictions.keys() & {"predicted", "scores", "detections"}
    assert np.array_equal(other.predictions[asked], outcome.predictions[asked])
    assert not same(other, outcome)  # whose truth is another


@pytest.mark.parametrize("name", ["detect", "segment"])
def test_rescaling_levels_the_rates_up_to_fc7(name, tmp_path):
    harness = FROZEN[name]
    rescaled = type(harness)(harness.config.model_copy(update={"rescale": True}))
    scales = measured(rescaled, stores_of(rescaled), tmp_path).selection["rescaled"]
    rates = [scales[name] for name in scales if name.endswith("rate_after")]
    before = [scales[name] for name in scales if name.endswith("rate_before")]
    assert len(rates) == 7  # conv1-5, fc6, fc7
    assert max(rates) / min(rates) < 1.05 < max(before) / min(before)


@pytest.mark.parametrize("name", FROZEN)
def test_an_encoder_that_changes_though_frozen_is_an_error(name, tmp_path):
    tested: Any = subject(HALF, "conv5")

    def drift(module, *_):
        module[0].bias.data.add_(1e-3)

    tested.encoder.conv1.register_forward_hook(drift)
    with pytest.raises(DataError, match="weights changed during a frozen evaluation"):
        measured(FROZEN[name], stores_of(FROZEN[name]), tmp_path, tested)


DEVIATIONS: list[tuple[Any, dict[str, Any], list[str]]] = [
    (FastRCNNConfig, {"steps": 5, "short": 96, "freeze": True}, ["freeze=True", "short=96"]),
    (FCN32sConfig, {"steps": 5, "kernel": 3, "longest": 128}, ["kernel=3", "longest=128"]),
    (Krahenbuhl16Config, {"steps": 5, "train": "fc8"}, ["train=fc8"]),
    (LinearHeadConfig, {"steps": 5, "labels": 5}, ["labels=5"]),
    (Zhang16Config, {"epochs": 5}, ["epochs=5"]),
]


@pytest.mark.parametrize(("config", "settings", "named"), DEVIATIONS)
def test_deviations_are_named_and_the_arithmetic_is_one_of_them(config, settings, named):
    assert config(precision="32", seed=3).deviations() == []
    named = named + ["steps=5"] * ("steps" in settings) + ["precision=bf16"]
    assert sorted(config(precision="bf16", **settings).deviations()) == sorted(named)
