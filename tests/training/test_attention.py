"""Attention of timm's blocks: fused or in products, one result; products where bf16 is a CPU's."""

from typing import Any

import pytest
import timm
import torch

from helpers import golden
from ssl_bench import catalogue
from ssl_bench.data.store.squares import open_store
from ssl_bench.runtime import Runtime
from ssl_bench.training.build import build_pretext
from ssl_bench.training.devices import attend_in_products
from ssl_bench.training.loop import train


@pytest.mark.parametrize("arch", ["test_vit2", "test_vit3", "eva02_tiny_patch14_224"])
def test_products_are_the_fused_attention(arch):
    size = 56 if "14" in arch else 64
    network = timm.create_model(arch, num_classes=0, img_size=size).double()
    images = torch.rand(2, 3, size, size, dtype=torch.float64)

    def found():
        network.zero_grad()
        features = network(images)
        features.square().sum().backward()
        return [
            features.detach(),
            *(w.grad.clone() for w in network.parameters() if w.grad is not None),
        ]

    fused = found()
    attend_in_products(network)
    for one, other in zip(fused, found(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("precision", "fused"), [("32", True), ("bf16", False)])
def test_a_training_in_bf16_on_a_cpu_attends_in_products(precision, fused, tmp_path):
    store = open_store(catalogue.dataset("scenes:train=8,test=4"), "train", 64, workers=0)
    given = golden.PRETEXTS["mae"] | {"image_size": 64, "steps": 1, "precision": precision}
    config: Any = catalogue.pretext("mae").Config(**given)
    task = build_pretext("mae", config, store.normalization)[0]
    train(task, store, config, 0, Runtime(workers=0), tmp_path)
    ways = [module.fused_attn for module in task.modules() if hasattr(module, "fused_attn")]
    assert len(ways) > config.decoder_depth  # the encoder's and the decoder's
    assert set(ways) == {fused}
