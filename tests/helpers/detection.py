"""Fast R-CNN, small and quick, for tests of detection."""

from pathlib import Path
from typing import Any

import torch

from eval.detection import FastRCNN, FastRCNNConfig
from eval.networks.fast_rcnn import new_heads
from eval.networks.geometry import Geometry
from eval.networks.proposals import Searched
from helpers import subjects
from ssl_bench.counter import Randomness
from ssl_bench.data.normalization import Normalization
from ssl_bench.runtime import Runtime

QUICK = FastRCNNConfig(steps=5, batch_size=2, short=96, longest=128, head=32, rois=32)
LEARNT = QUICK.model_copy(update={"proposals": "rpn"})
DETECT = ("--steps", "3", "--short", "96", "--longest", "128", "--head", "32", "--rois", "16")
PLAIN = Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def subject(store, width=0.1, arch="alexnet", layer="conv5"):
    return subjects.subject(store.normalization, layer, arch=arch, width=width)


def detected(config, tested, stores, folder: Path, **runtime):
    folder.mkdir(exist_ok=True)
    (layer,) = tested.layers
    settings = Runtime(**{"workers": 0, **runtime})
    train, test = stores
    return dict(
        FastRCNN(config).evaluate(tested, {"train": train, "test": test}, settings, {layer: folder})
    )[layer]


def network_of(tested, store, config=QUICK):
    (layer,) = tested.layers
    return FastRCNN(config).network(tested.encoder, layer, tested.spec, Searched(store, None))


def kept(monkeypatch):
    """The networks that are made from here on."""
    made, plain = [], FastRCNN.network

    def noting(self, *arguments):
        made.append(plain(self, *arguments))
        return made[-1]

    monkeypatch.setattr(FastRCNN, "network", noting)
    return made


def heads_of(encoder, classes=3, rois=32, lowest=0.1):
    heads: Any = new_heads(Geometry(encoder, "conv5"), 16, classes, rois, lowest, 0)
    heads.fg_bg_sampler.draw = draw_of(0)
    return heads


def draw_of(seed):
    random = Randomness(seed, 0, torch.arange(4))

    def draw(stream, image, count):
        return Randomness(seed, 0, random.positions[image : image + 1]).uniform(stream, count)[0]

    return draw
