"""Every weight that asks for a gradient gets one, on networks of others, too.

Several devices wait for the gradients of all weights that ask for one: a head of a library's
network, which no loss reaches, would stop the second step of a training on two.
"""

from typing import Any

import pytest
import torch

from helpers import golden
from ssl_bench import catalogue
from ssl_bench.runtime import Runtime
from ssl_bench.training import loop
from ssl_bench.training.pretrain import pretrain

SMALL = {"steps": 1, "batch_size": 4, "image_size": 32, "warmup": 0}
RESNET, VIT = "torchvision:resnet18", "timm:vit_tiny_patch16_224"
ELSE = {"random", "kmeans-init", "inpainting"}  # nothing is trained, or a network of its own
ON_VIT = ("context-encoder", "i-jepa", "ibot", "mae", "simclr")
CASES = [(name, VIT) for name in ON_VIT]
CASES += [
    (name, RESNET)
    for name in sorted({*catalogue.names("pretext")} - ELSE - {"i-jepa", "ibot", "mae"})
]


def trained_on(name: str, arch: str, folder: Any) -> None:
    """One step."""
    Config: Any = catalogue.pretext(name).Config
    asked = SMALL | golden.PRETEXTS.get(name, {}) | {"arch": arch, "optimizer": "sgd"}
    known = Config.model_fields.keys() - {"width", "init"}
    config = Config(**{key: value for key, value in asked.items() if key in known})
    pretrain(name, config, "scenes:train=8,test=2", folder, Runtime(workers=0, devices="1"))


@pytest.mark.parametrize(("name", "arch"), CASES)
def test_every_weight_that_asks_for_a_gradient_gets_one(name, arch, tmp_path, monkeypatch):
    asking, got = set[str](), set[str]()
    place = loop.place

    def watched(task: torch.nn.Module, *args: Any, **more: Any) -> None:
        place(task, *args, **more)
        for key, weight in task.named_parameters():
            if weight.requires_grad:
                asking.add(key)
                weight.register_post_accumulate_grad_hook(lambda _, key=key: got.add(key))

    monkeypatch.setattr(loop, "place", watched)
    trained_on(name, arch, tmp_path)
    assert asking
    assert sorted(asking - got) == []
