"""Names of the libraries' networks, with what is wrong with one in a line."""

from typing import Any

import pytest
import timm
import torch
import torchvision.models

from helpers.refusals import fails
from ssl_bench.cli.inspect import inspect_network
from ssl_bench.data.normalization import HALF
from ssl_bench.encoders.build import EncoderSpec, build_encoder, least_size, own_spec
from ssl_bench.errors import UsageError


@pytest.mark.parametrize(
    "name", ["vit_small_patch16_224.dino", "convnext_tiny.in12k_ft_in1k_384", "resnet18.tv_in1k"]
)
def test_a_tag_says_size_and_normalisation(name):
    config: Any = timm.get_pretrained_cfg(name)
    spec = own_spec(f"timm:{name}")
    assert spec.image_size == config.input_size[-1]
    assert spec.normalization.mean == config.mean
    with torch.device("meta"):
        encoder = build_encoder(spec.model_copy(update={"image_size": 64}))
    assert encoder.layers[-1] == "pooled"


def test_a_network_with_a_tag_is_inspected_without_weights():
    found = inspect_network("timm:test_resnet.r160_in1k", image_size=64)
    assert found["taps"] == inspect_network("timm:test_resnet", image_size=64)["taps"]


def test_weights_that_cannot_be_had_are_one_line(bench, tmp_path, monkeypatch):
    """Of a hub without network."""

    def fail(*_, **__):
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(timm, "create_model", fail)
    words = ("--data", "scenes:train=4,test=4", "--workspace", tmp_path, "--workers", 0)
    done = bench("knn", "--encoder", "timm:test_vit.r160_in1k", *words)
    fails(done, 1, "the weights of timm:test_vit.r160_in1k cannot be had (ConnectionError)")


REFUSED = {
    "timm:resnet18.nothing": "unknown pretrained tag of timm:resnet18 'nothing'; known: a1_in1k",
    "timm:resnet18.a1_in1": "did you mean a1_in1k or ",
    "timm:resnet1888": "did you mean resnet18 or ",
    "timm:qqqqqq": r"known: .*, … \([0-9]+ in all\)",
    "timm:hf-hub:timm/resnet18.a1_in1k": "a file on the hub says which network it is",
    "timm:hf_hub:timm/resnet18": "a file on the hub",
    "timm:local-dir:/tmp": "a file on the hub",
    "torchvision:resnet1888": "did you mean resnet18 or ",
    "torchvision:fasterrcnn_resnet50_fpn": r"torchvision\.models\.detection: encoders are",
    "torchvision:fcn_resnet50": r"torchvision\.models\.segmentation",
    "torchvision:r3d_18": r"torchvision\.models\.video",
    "torchvision:raft_small": r"torchvision\.models\.optical_flow",
    "torchvision:quantized_resnet18": r"torchvision\.models\.quantization",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_is_none_is_refused_in_one_line(name):
    with pytest.raises(UsageError, match=REFUSED[name]) as refused:
        own_spec(name)
    assert len(str(refused.value)) < 1500
    assert "\n" not in str(refused.value)


def test_whatever_classifies_is_an_encoder():
    every = torchvision.models.list_models()
    classify = torchvision.models.list_models(module=torchvision.models)
    assert 0 < len(classify) < len(every)
    for name in every:
        spec = EncoderSpec(arch=f"torchvision:{name}", image_size=224, normalization=HALF)
        if name not in classify:
            with pytest.raises(UsageError, match=f"torchvision:{name} is of"):
                build_encoder(spec)


@pytest.mark.parametrize("size", [20, 40])
def test_the_least_size_is_said_at_once(bench, size):
    """Not 32 first, and then 64."""
    for words in (("inspect", "alexnet"), ("pretrain", "random")):
        fails(bench(*words, "--image-size", size), 2, "alexnet", "at least 64 px", str(size))
    assert (least_size("dcgan"), least_size("timm:resnet18")) == (128, 32)
