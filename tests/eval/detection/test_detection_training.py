"""Detection: what learns, at which rate, and that it does."""

import math

import pytest
import torch
from torch import nn

from eval.detection import FastRCNN, FastRCNNConfig
from helpers.detection import LEARNT, QUICK, detected, kept, network_of, subject
from ssl_bench import catalogue
from ssl_bench.data.store.whole import open_whole
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.training.schedule import rate_factor


# ---- what learns
def test_conv1_stays_and_the_rest_learns(stores, tmp_path, monkeypatch):
    networks, tested = kept(monkeypatch), subject(stores[0])
    before = {name: t.clone() for name, t in tested.encoder.state_dict().items()}
    digest = weights_digest(tested.encoder.state_dict())
    outcome = detected(QUICK, tested, stores, tmp_path / "a")
    after = networks[0].encoder.cpu().state_dict()
    moved = {
        name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])
    }
    assert moved == {"conv2", "conv3", "conv4", "conv5"}
    assert weights_digest(tested.encoder.state_dict()) == digest  # the subject itself
    assert outcome.selection["stride"] == 16
    assert outcome.selection["margin"] == 17
    assert set(outcome.selection["final_losses"]) == {"loss", "loss_class", "loss_box"}


def test_a_frozen_encoder_stays_as_it_was(stores, tmp_path, monkeypatch):
    networks, tested = kept(monkeypatch), subject(stores[0])
    frozen = QUICK.model_copy(update={"freeze": True, "steps": 2})
    detected(frozen, tested, stores, tmp_path / "a")
    digest = weights_digest(tested.encoder.state_dict())
    assert weights_digest(networks[0].encoder.cpu().state_dict()) == digest
    assert not networks[0].train().encoder.training


def test_batch_statistics_stay_in_any_encoder(stores):
    tested = subject(stores[0], 1.0, "torchvision:resnet18", "layer3")
    network = network_of(tested, stores[0])
    network.train()
    norms = [m for m in network.encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    fixed = [n for n, p in network.encoder.named_parameters() if not p.requires_grad]
    behind = ("model.layer4", "model.fc")
    assert [n for n in fixed if not n.startswith(behind)] == ["model.conv1.weight"]
    assert network.pooling.stride == 16


def test_biases_learn_twice_as_fast_and_do_not_decay(stores):
    sgd = FastRCNN(QUICK).optimizer(network_of(subject(stores[0]), stores[0]))
    weights, biases = sgd.param_groups
    assert (weights["lr"], weights["weight_decay"], weights["momentum"]) == (1e-3, 5e-4, 0.9)
    assert (biases["lr"], biases["weight_decay"], biases["momentum"]) == (2e-3, 0, 0.9)
    assert len(weights["params"]) == len(biases["params"]) == 4 + 4  # conv2-5; fc6-7, two outputs


def test_the_rate_falls_once_at_three_quarters():
    factors = [rate_factor("drop", step, 40_000) for step in (0, 29_999, 30_000, 39_999)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1])


def test_half_precision_trains(stores, tmp_path):
    config = LEARNT.model_copy(update={"precision": "bf16", "steps": 2})
    outcome = detected(config, subject(stores[0]), stores, tmp_path / "a")
    assert all(math.isfinite(loss) for loss in outcome.selection["final_losses"].values())


# ---- learning
@pytest.mark.parametrize("source", ["selective-search", "rpn"])
def test_it_learns_its_training_images(source, tmp_path):
    """Four scenes, tested on what it was trained on: every object, in its place."""
    data = catalogue.dataset("scenes:train=4,test=1")
    store = open_whole(data, "train", "detection", 128, 128, workers=0)
    config = FastRCNNConfig(
        batch_size=4, lr=4e-3, short=128, longest=128, head=128, rois=32, proposals=source,
        rescale=True,
    )  # fmt: skip
    found = []
    for steps in (1, 160):
        made = config.model_copy(update={"steps": steps})
        outcome = detected(made, subject(store, 0.25), (store, store), tmp_path / str(steps))
        found.append(FastRCNN(made).score(outcome.predictions)["map11"])
    assert found[0] < 40
    assert found[1] > 90
