"""Every pretext and every evaluation on a device that is not the CPU; see helpers.stub_device."""

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from helpers import golden
from helpers.refusals import only
from helpers.stub_device import stub_device, use_stub_device
from ssl_bench import catalogue
from ssl_bench.evaluation.evaluate import evaluate
from ssl_bench.evaluation.reference import Reference
from ssl_bench.records.workspace import predictions_of
from ssl_bench.runtime import Runtime
from ssl_bench.training.pretrain import pretrain

DATA = "scenes:train=60,test=6"
RUNTIME = Runtime(workers=0, devices="1")
SMALL = {
    "width": 0.1,
    "init": "fan-in",
    "steps": 2,
    "batch_size": 4,
    "image_size": 64,
    "images": 16,
    "patches": 200,
}
PRETEXTS: dict[str, list[dict[str, Any]]] = {
    "context-encoder": [{"mask": m} for m in ("central", "random-block", "random-region")],
    "inpainting": [
        {"image_size": 128, "init": "dcgan", "bottleneck": 8, **more}
        for more in ({}, {"loss": "l2", "mask": "random-region"})
    ],
}
CASES = [
    (n, more)
    for n in catalogue.names("pretext")
    for more in PRETEXTS.get(n, [golden.PRETEXTS.get(n, {})])
]


def config_of(name: str, more: dict[str, Any]) -> Any:
    """Small, of what the pretext knows."""
    Config = catalogue.pretext(name).Config
    known = Config.model_fields.keys()
    known -= {"width", "init"} if "arch" in more else set()  # a library's network has its own
    return Config(**{k: v for k, v in (SMALL | more).items() if k in known})


@pytest.mark.parametrize(("name", "more"), CASES)
def test_a_pretext_trains_on_another_device_to_the_same_weights(name, more, tmp_path, monkeypatch):
    config = config_of(name, more)
    pretrain(name, config, DATA, tmp_path / "cpu", RUNTIME)
    use_stub_device(monkeypatch)
    with stub_device():
        pretrain(name, config, DATA, tmp_path / "stub", RUNTIME)
    here, there = (
        load_file(only(tmp_path / p, "pretrain/*/encoder.safetensors")) for p in ("cpu", "stub")
    )
    for layer, weights in here.items():
        assert torch.allclose(weights, there[layer], atol=1e-5), layer


TRAINING = {"steps": 2, "batch_size": 4, "lr": 0.01}
WHOLE = {"head": 16, "short": 64, "longest": 64, "rescale": True}
EVALUATIONS: dict[str, list[dict[str, Any]]] = {
    "linear-probe.zhang16": [{"epochs": 1, "batch_size": 8}],
    "finetune": [{**TRAINING, "head": 16, "crops": 2, "rescale": True}],
    "finetune.linear-head": [{**TRAINING, "labels": 1}],
    "segment": [{**TRAINING, **WHOLE, "kernel": 1}],
    "detect": [
        {**TRAINING, **WHOLE, "rois": 8, "proposals": p} for p in ("selective-search", "rpn")
    ],
    **{name: [{"k": (5,)}] for name in ("knn", "knn.vissl", "knn.lightly")},
    "linear-probe": [{"strengths": 2}],
    "svm": [{"folds": 2}],
    "low-shot": [{"shots": (1,), "draws": 2}],
}
CASES2 = [(n, more) for n in catalogue.names("eval") for more in EVALUATIONS.get(n, [{}])]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    place = tmp_path_factory.mktemp("encoders")
    settings = {"image_size": 64, "width": 0.1, "init": "fan-in", "steps": 1, "batch_size": 4}
    config = catalogue.pretext("context-encoder").Config(**settings)
    pretrain("context-encoder", config, DATA, place, RUNTIME)
    return place


def measured(name: str, more: dict[str, Any], place: Path) -> list[Any]:
    """The predictions of an evaluation of the encoder in this workspace."""
    harness = catalogue.evaluation(name)
    request = (harness(harness.Config(**more)), ["conv4"])
    made = evaluate([request], Reference("context-encoder", place), DATA, place, RUNTIME)
    return [predictions_of(record, place) for record in made]


@pytest.mark.parametrize(("name", "more"), CASES2)
def test_an_evaluation_gives_the_same_predictions_on_another_device(
    name, more, workspace, tmp_path, monkeypatch
):
    found = []
    for place in ("cpu", "stub"):
        copy = shutil.copytree(workspace, tmp_path / place)
        if place == "stub":
            use_stub_device(monkeypatch)
        with stub_device() if place == "stub" else nullcontext():
            found.append(measured(name, more, copy))
    for here, there in zip(*found, strict=True):
        for array in here:
            np.testing.assert_allclose(here[array], there[array], rtol=1e-3, atol=1e-3)
