"""The base of the protocols that train: groups, rows, and that what is frozen stays."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from eval.detection import FastRCNN, FastRCNNConfig
from eval.finetuning import FineTuned
from eval.krahenbuhl16 import Krahenbuhl16, Krahenbuhl16Config
from eval.networks.learner import Learner, caffe_groups
from eval.segmentation import FCN32s, FCN32sConfig
from helpers.places import ROOT
from helpers.subjects import subject
from ssl_bench import catalogue
from ssl_bench.counter import Randomness
from ssl_bench.data.normalization import HALF
from ssl_bench.data.store.squares import open_store
from ssl_bench.evaluation.harness import score_with_intervals
from ssl_bench.runtime import Runtime
from ssl_bench.training.pretext import Step


def step(images=2) -> Step:
    places = torch.arange(images)
    return Step(0, places, Randomness(0, 0, places), torch.Tensor.backward)


# ---- parts
def test_caffes_groups_are_weights_and_biases_that_learn():
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 5))
    network[1].requires_grad_(False)
    weights, biases = caffe_groups(network, 0.1)
    assert [p.shape for p in weights["params"]] == [(3, 2), (5, 4)]
    assert [p.shape for p in biases["params"]] == [(3,), (5,)]
    assert (weights["lr"], weights["weight_decay"]) == (0.1, 5e-4)
    assert (biases["lr"], biases["weight_decay"]) == (0.2, 0)
    others, last = caffe_groups(network, 0.1, decay=1e-6, bias_decay=1e-6, biases="2.bias")
    assert [p.shape for p in last["params"]] == [(5,)]
    assert len(others["params"]) == 3
    assert others["weight_decay"] == last["weight_decay"] == 1e-6


def test_a_batch_gets_its_rows_and_the_parts_of_its_loss_are_summed():
    seen = []

    def loss(network, images, truth, step):
        seen.append(truth)
        out = network(images).sum()
        return {"a": out, "b": 2 * out}

    def sgd(network):
        return torch.optim.SGD(network.parameters(), 0.5)

    network = nn.Linear(1, 1, bias=False)
    nn.init.ones_(network.weight)
    task = Learner(network, sgd, loss, {"x": torch.tensor([5, 6, 7]), "y": ["p", "q", "r"]})
    task.optimizers()
    which = Step(0, torch.tensor([2, 0]), step().random, torch.Tensor.backward)
    values = task.train_step(torch.ones(2, 1), which)
    assert seen[0]["x"].tolist() == [7, 5]
    assert seen[0]["y"] == ["r", "p"]
    assert {name: float(value) for name, value in values.items()} == {"loss": 6, "a": 2, "b": 4}
    assert float(network.weight.detach()) == 1 - 0.5 * 6  # along the sum, 3 · (1 + 1)
    assert not task.state_dict().keys() - {"network.weight"}  # no labels in a checkpoint


# ---- frozen, through a step of training
SMALL: dict[str, Any] = {"short": 64, "longest": 64, "head": 8}
DETECTION = {**SMALL, "rois": 8, "proposals": "rpn"}
WHAT_STAYS: dict[str, tuple[FineTuned, bool]] = {  # the harness, and whether weights stay, too
    "detection": (FastRCNN(FastRCNNConfig(**DETECTION)), False),
    "detection, frozen": (FastRCNN(FastRCNNConfig(freeze=True, **DETECTION)), True),
    "segmentation": (FCN32s(FCN32sConfig(kernel=1, **SMALL)), False),
    "segmentation, frozen": (FCN32s(FCN32sConfig(kernel=1, freeze=True, **SMALL)), True),
    "fc6-8": (Krahenbuhl16(Krahenbuhl16Config(train="fc6-8", head=8)), True),
    "fc8": (Krahenbuhl16(Krahenbuhl16Config(train="fc8", head=8)), True),
}


@pytest.mark.parametrize("name", WHAT_STAYS)
@pytest.mark.parametrize(
    ("arch", "layer"), [("torchvision:resnet18", "layer2"), ("timm:resnet10t", "layer2")]
)
def test_statistics_of_batches_stay_through_a_step_of_training(name, arch, layer):
    """Of every encoder, also one whose forward has parts of its own to switch."""
    harness, all_stays = WHAT_STAYS[name]
    tested = subject(HALF, layer, arch=arch, width=1)
    data = catalogue.dataset("scenes:train=4,test=2")
    opened = [harness.open(data, split, tested.spec, workers=0) for split in ("train", "test")]
    train, _ = harness.prepared(tested, *opened)
    network: Any = harness.network(tested.encoder, layer, tested.spec, train)
    before = {n: tensor.clone() for n, tensor in network.encoder.state_dict().items()}
    task = harness.learner(network, train, tested.spec)
    task.optimizers()
    task.train()
    batch = train.batch(torch.arange(2).numpy())
    task.train_step(batch["images"], replace(step(), batch=batch))
    moved = {n for n, t in network.encoder.state_dict().items() if not t.equal(before[n])}
    assert [n for n in moved if "running" in n or "num_batches" in n] == []
    assert all_stays == (not moved)


# ---- the one in the docs
def test_the_example_of_the_docs_is_a_protocol(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/extend.md").read_text(), re.S)
    (code,) = (block for block in blocks if "class OneLinear(" in block)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "docs/extend.md", "exec"), names)
    harness = names["OneLinear"](names["OneLinearConfig"](steps=3, batch_size=8))
    tested = subject(HALF, "conv5")
    data = catalogue.dataset("scenes:train=60,test=30")
    train, test = (open_store(data, split, 64, workers=0) for split in ("train", "test"))
    harness.check({"train": train, "test": test})
    folders: dict[str, Path] = {"conv5": tmp_path}
    ((layer, outcome),) = harness.evaluate(
        tested, {"train": train, "test": test}, Runtime(workers=0), folders
    )
    assert layer == "conv5"
    assert outcome.selection["training_images"] == 60
    assert outcome.selection["final_loss"] > 0
    found = score_with_intervals(harness, outcome.predictions)
    assert found["top1_low"] <= found["top1"] <= found["top1_high"]
