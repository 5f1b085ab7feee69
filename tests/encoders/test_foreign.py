"""Checkpoints as projects write them: the same network under other names, the same features."""

import argparse
import datetime
import importlib
import pathlib
import re
import types
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from helpers.checkpoints import (
    State,
    body_of,
    encoder_of,
    features,
    loaded,
    named,
    other,
    plain_of,
)
from ssl_bench.data.normalization import HALF
from ssl_bench.encoders.build import EncoderSpec, build_encoder
from ssl_bench.encoders.foreign import load_foreign
from ssl_bench.errors import DataError

HEADS = {"fc.0.weight": torch.ones(3, 3), "projection_head.0.weight": torch.ones(4, 4)}
FORMS: dict[str, tuple[Callable[[State, State], Any], str]] = {
    "no classifier": (lambda whole, body: body, ""),
    "classifier of another size": (
        lambda whole, body: body | {"fc.weight": torch.ones(10, 7), "fc.bias": torch.ones(10)},
        "left out: fc.weight, fc.bias",
    ),
    "no counters": (
        lambda whole, body: {n: t for n, t in whole.items() if "num_batches" not in n},
        "zero: ",
    ),
    "DataParallel": (lambda whole, body: {"state_dict": named("module.", whole)}, "module."),
    "compiled": (lambda whole, body: named("_orig_mod.", whole), ": "),
    "compiled in parts": (
        lambda whole, body: {n.replace("layer", "_orig_mod.layer"): t for n, t in whole.items()},
        ": ",
    ),
    "FSDP": (
        lambda whole, body: {
            f"_fsdp_wrapped_module.{n.replace('.', '._checkpoint_wrapped_module.', 1)}": t
            for n, t in whole.items()
        },
        ": ",
    ),
    "MoCo": (
        lambda whole, body: {
            "state_dict": named("module.encoder_q.", body | HEADS)
            | other("module.encoder_k.", body)
            | {"module.queue": torch.zeros(2, 4)},
            "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}},
        },
        r"under state_dict.module.encoder_q.: .*; state_dict.module.encoder_k. fits too",
    ),
    "MoCo v3": (
        lambda whole, body: {
            "state_dict": named("module.base_encoder.", body)
            | other("module.momentum_encoder.", body)
        },
        "base_encoder",
    ),
    "DINO": (
        lambda whole, body: {
            "student": other("module.backbone.", body),
            "teacher": named("backbone.", body) | {"head.mlp.0.weight": torch.zeros(3, 3)},
        },
        "under teacher.backbone.: ",
    ),
    "BYOL": (
        lambda whole, body: {
            "state_dict": other("target_network.encoder.", body)
            | named("online_network.encoder.", body)
        },
        "online_network",
    ),
    "I-JEPA": (
        lambda whole, body: {
            "encoder": other("module.", body),
            "target_encoder": named("module.", body),
        },
        "under target_encoder.module.: ",
    ),
    "solo-learn": (
        lambda whole, body: {
            "state_dict": other("momentum_backbone.", body) | named("backbone.", body)
        },
        "under state_dict.backbone.: ",
    ),
    "VISSL": (
        lambda whole, body: {
            "phase_idx": 3,
            "classy_state_dict": {
                "base_model": {
                    "model": {
                        "trunk": named("_feature_blocks.", body),
                        "heads": {"0.clf.0.weight": torch.ones(2, 2)},
                    }
                }
            },
        },
        r"base_model\.model\.trunk\._feature_blocks\.",
    ),
    "an average of weights": (
        lambda whole, body: {"state_dict": other("", whole), "state_dict_ema": whole},
        "under state_dict_ema.",
    ),
    "timm's training script": (
        lambda whole, body: {"model": other("", whole), "model_ema": whole, "epoch": 9},
        "model_ema",
    ),
    "Lightning": (
        lambda whole, body: {
            "pytorch-lightning_version": "2.2",
            "state_dict": named("model.encoder.", body) | named("model.projector.", HEADS),
        },
        r"model\.encoder\.",
    ),
    "SwAV": (
        lambda whole, body: named("module.", body | HEADS | {"prototypes.weight": torch.ones(2)}),
        "left out: ",
    ),
    "twice the same": (
        lambda whole, body: {"model": whole, "net": {n: t.clone() for n, t in whole.items()}},
        "under net.: ",
    ),
    "half precision": (lambda whole, body: {n: t.double() for n, t in whole.items()}, ""),
}  # fmt: skip


@pytest.fixture(scope="module")
def resnet() -> tuple[State, State, Tensor]:
    """Its state dict, the same without classifier, and what its layers give."""
    whole = plain_of("timm:test_resnet")
    encoder = encoder_of("timm:test_resnet")
    own = {f"model.{n}": t for n, t in whole.items() if not n.startswith("fc.")}
    encoder.load_state_dict(own)  # by torch alone
    return whole, body_of(whole), features(encoder)


@pytest.mark.parametrize("form", FORMS)
def test_whatever_stands_before_the_names_the_weights_are_found(form, resnet, tmp_path):
    whole, body, expected = resnet
    make, said = FORMS[form]
    found, taken = loaded("timm:test_resnet", make(whole, body), tmp_path / "c.pth")
    assert torch.equal(found, expected)
    assert re.search(said, taken), taken


@pytest.mark.parametrize("form", ["plain", "ten", "no counters"])
def test_torchvisions_networks_need_no_classifier(form, tmp_path):
    whole = plain_of("torchvision:mnasnet0_5")
    body = {n: t for n, t in whole.items() if not n.startswith("classifier.")}
    forms: dict[str, Any] = {
        "plain": whole,
        "ten": body | {"classifier.1.weight": torch.ones(10, 1280)},
        "no counters": {n: t for n, t in body.items() if "num_batches" not in n},
    }  # fmt: skip
    encoder: Any = encoder_of("torchvision:mnasnet0_5")
    with torch.no_grad():  # its own load_state_dict wants a version beside the weights
        for name, tensor in encoder.model.state_dict().items():
            tensor.copy_(whole[name])
    found, taken = loaded("torchvision:mnasnet0_5", forms[form], tmp_path / "c.pth")
    assert torch.equal(found, features(encoder))
    assert ("zero: " in taken) == (form != "plain")


@pytest.mark.parametrize("name", ["convnext_tiny", "googlenet", "squeezenet1_1", "vit_b_32"])
def test_what_torchvisions_classifiers_are(name):
    """All that a map depends on must be in a file: ConvNeXt's `pooled` is behind a norm there."""
    spec = EncoderSpec(arch=f"torchvision:{name}", image_size=64, normalization=HALF)
    with torch.device("meta"):
        encoder: Any = build_encoder(spec)
        maps = encoder(torch.empty(2, 3, 64, 64), encoder.layers)
    torch.stack([m.sum() for m in maps.values()]).sum().backward()
    reached = {n for n, p in encoder.named_parameters() if p.grad is not None}
    assert reached == {n for n, _ in encoder.named_parameters() if not n.startswith(encoder.head)}


def test_a_file_without_classifier_is_always_the_same_encoder(tmp_path):
    """What chance drew for it is not a part of the identity."""
    body = {n: t for n, t in plain_of("torchvision:mnasnet0_5").items() if "classifier" not in n}
    torch.save(body, tmp_path / "c.pth")
    states = []
    for number in (3, 5):
        encoder = encoder_of("torchvision:mnasnet0_5")
        for tensor in encoder.state_dict().values():
            tensor.fill_(number)
        load_foreign(encoder, tmp_path / "c.pth")
        states.append({n: t.clone() for n, t in encoder.state_dict().items()})
    assert all(torch.equal(t, states[1][n]) for n, t in states[0].items())


def test_safetensors_have_prefixes_too(resnet, tmp_path):
    _, body, expected = resnet
    save_file(other("student.", body) | named("teacher.", body), tmp_path / "c.safetensors")
    encoder = encoder_of("timm:test_resnet")
    load_foreign(encoder, tmp_path / "c.safetensors")
    assert torch.equal(features(encoder), expected)


# ---- which of several
def test_a_prefix_chooses(resnet, tmp_path):
    _, body, expected = resnet
    content = {"student": named("backbone.", body), "teacher": other("backbone.", body)}
    assert not torch.equal(loaded("timm:test_resnet", content, tmp_path / "c.pth")[0], expected)
    for under in ("student", "student.", "student.backbone"):
        found, taken = loaded("timm:test_resnet", content, tmp_path / "c.pth", under)
        assert torch.equal(found, expected)
        assert "teacher" not in taken
    with pytest.raises(DataError, match="nothing under 'stud'"):
        loaded("timm:test_resnet", content, tmp_path / "c.pth", "stud")


def test_where_no_order_tells_one_is_to_be_named(resnet, tmp_path):
    _, body, _ = resnet
    content = named("left.", body) | other("right.", body)
    with pytest.raises(DataError, match=r"several .* left\., right\.: name one, .*c.pth:left$"):
        loaded("timm:test_resnet", content, tmp_path / "c.pth")


# ---- what does not fit
def test_a_longer_network_is_not_cut_short(resnet, tmp_path):
    """A ResNet-34 has all that a ResNet-18 asks for."""
    whole, *_ = resnet
    for extra in ("layer2.5.conv1.weight", "layer5.0.conv1.weight", "cls_token"):
        with pytest.raises(DataError, match=f"has {extra}, which the encoder lacks"):
            loaded(
                "timm:test_resnet", named("net.", whole | {extra: torch.zeros(1)}), tmp_path / "c"
            )


def test_the_nearest_is_named(resnet, tmp_path):
    _, body, _ = resnet
    del body["layer1.0.conv1.weight"]
    body |= {"layer1.0.bn1.weight": torch.zeros(3), "odd.weight": torch.zeros(1)}
    content = {"state_dict": named("module.net.", body), "head": {"conv1.weight": torch.zeros(1)}}
    with pytest.raises(DataError) as refused:
        loaded("timm:test_resnet", content, tmp_path / "c.pth")
    said = str(refused.value)
    for part in ("lacks layer1.0.conv1.weight", "layer1.0.bn1.weight is (3,), not (",
                 "under state_dict.module.net.", "odd.weight"):  # fmt: skip
        assert part in said, said


# ---- vision transformers
def test_position_embeddings_of_another_grid_are_resampled_as_timm_does(tmp_path):
    whole = plain_of("timm:test_vit", img_size=96)
    oracle: Any = timm.create_model("test_vit", img_size=64)
    state = timm.models.vision_transformer.checkpoint_filter_fn(dict(whole), oracle)
    same, taken = loaded("timm:test_vit", state, tmp_path / "own.pth")
    assert "made to fit" not in taken
    for content in (whole, {"teacher": named("backbone.", whole)}):
        found, taken = loaded("timm:test_vit", content, tmp_path / "c.pth")
        assert torch.equal(found, same)
        assert "as the library converts them (pos_embed made to fit)" in taken


def test_torchvision_resamples_its_own():
    spec = EncoderSpec(arch="torchvision:vit_b_32", image_size=64, normalization=HALF)
    with torch.device("meta"):
        encoder = build_encoder(spec)
    state = {"encoder.pos_embedding": torch.rand(1, 1 + 3 * 3, 768), "a": torch.ones(1)}
    expected = torchvision.models.vision_transformer.interpolate_embeddings(
        64, 32, OrderedDict(state)
    )
    found = encoder.convert(dict(state))
    assert found["encoder.pos_embedding"].shape == (1, 1 + 2 * 2, 768)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[n], expected[n]) for n in state)


def test_patches_of_another_size_are_another_network(tmp_path):
    whole = plain_of("timm:test_vit", patch_size=8, img_size=32)  # as many patches as 64 px have
    with pytest.raises(DataError, match=r"patch_embed\.proj\.weight is"):
        loaded("timm:test_vit", whole, tmp_path / "c.pth")


def test_a_masked_autoencoder_leaves_its_decoder(tmp_path):
    whole = plain_of("timm:test_vit", img_size=64)
    body = body_of(whole)
    expected, _ = loaded("timm:test_vit", whole, tmp_path / "own.pth")
    decoder = {
        "mask_token": torch.zeros(1, 1, 4), "decoder_pos_embed": torch.zeros(1, 5, 4),
        "decoder_blocks.0.norm1.weight": torch.zeros(4), "decoder_pred.weight": torch.zeros(4, 4),
    }  # fmt: skip
    args = argparse.Namespace(lr=1.5e-4, output_dir=pathlib.Path("out"))
    found, taken = loaded("timm:test_vit", {"model": body | decoder, "args": args}, tmp_path / "c")
    assert torch.equal(found, expected)
    assert "left out: mask_token, decoder_pos_embed, decoder_blocks" in taken


def test_dinov2s_registers_belong_to_a_network_with_registers(tmp_path):
    own = plain_of("timm:test_vit", img_size=64)
    dinov2 = own | {"mask_token": torch.zeros(1, 64), "register_tokens": torch.rand(1, 4, 64)}
    with pytest.raises(DataError, match="register_tokens, which the encoder lacks"):
        loaded("timm:test_vit", dinov2, tmp_path / "c.pth")


def test_openclips_names_are_converted_by_timm(tmp_path):
    whole = plain_of("timm:test_vit", img_size=64)
    expected, _ = loaded("timm:test_vit", whole, tmp_path / "own.pth")
    text = {"text.token_embedding.weight": torch.zeros(9, 4), "logit_scale": torch.ones(())}
    found, _ = loaded("timm:test_vit", named("visual.trunk.", whole) | text, tmp_path / "c.pth")
    assert torch.equal(found, expected)


# ---- what stands beside the weights
class Settings:
    """A script's own, which is not to be found where the file is read."""

    def __init__(self) -> None:
        self.rate = 0.1


class Attributes(dict[str, Any]):
    """As Lightning's AttributeDict."""


BESIDE: dict[str, Callable[[], Any]] = {
    "namespace": lambda: argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("a/b")),
    "simple namespace": lambda: types.SimpleNamespace(lr=0.1),
    "numpy scalar": lambda: np.float64(71.3),
    "numpy array": lambda: np.arange(3),
    "time": lambda: datetime.datetime(2020, 1, 1) - datetime.datetime(2019, 1, 1),
    "defaultdict": lambda: defaultdict(list, a=[1]),
    "settings": Settings,
    "attributes": lambda: Attributes(a=1, b=Settings()),
    "class": lambda: {Settings: 1},
}


@pytest.mark.parametrize("kind", BESIDE)
def test_harmless_objects_beside_the_weights_are_left_unread(kind, resnet, tmp_path, monkeypatch):
    whole, _, expected = resnet
    torch.save({"state_dict": whole, "beside": BESIDE[kind]()}, tmp_path / "c.pth")
    monkeypatch.setattr(Settings, "__init__", lambda *_: pytest.fail("the file's class was used"))
    monkeypatch.setattr(Settings, "__setstate__", lambda *_: pytest.fail("used"), raising=False)
    encoder = encoder_of("timm:test_resnet")
    load_foreign(encoder, tmp_path / "c.pth")
    assert torch.equal(features(encoder), expected)


class Payload:
    def __init__(self, function: Any, *words: Any) -> None:
        self.call = function, words

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("form", ["method", "evaluation", "module", "import"])
def test_what_could_run_is_refused_by_name_whole_weights_beside_or_not(form, resnet, tmp_path):
    whole, *_ = resnet
    mark = tmp_path / "ran"
    code = f"open({str(mark)!r}, 'w')"
    payloads: dict[str, tuple[Any, str]] = {
        "method": (Payload(Path.touch, mark), "getattr"),
        "evaluation": (Payload(eval, code), "eval"),
        "module": (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        "import": (Payload(importlib.import_module, "this"), "importlib"),
    }
    payload, name = payloads[form]
    torch.save({"state_dict": whole, "beside": payload}, tmp_path / "c.pth")
    with pytest.raises(DataError, match=rf"holds {name}.* could run code: .*state dict alone"):
        load_foreign(encoder_of("timm:test_resnet"), tmp_path / "c.pth")
    assert not mark.exists()


def test_dictionaries_that_hold_themselves_end(resnet, tmp_path):
    whole, _, expected = resnet
    content: dict[str, Any] = {"state_dict": whole}
    content["again"] = content
    for _ in range(40):  # 2⁴⁰ ways to the weights
        content = {"a": content, "b": content}
    found, _ = loaded("timm:test_resnet", content, tmp_path / "c.pth")
    assert torch.equal(found, expected)


def test_two_tensors_of_one_name_are_refused(resnet, tmp_path):
    whole, *_ = resnet
    content = {"net": {"conv1.0.weight": torch.zeros(1)}, **named("net.", whole)}
    with pytest.raises(DataError, match=r"two tensors of the name net\.conv1\.0\.weight"):
        loaded("timm:test_resnet", content, tmp_path / "c.pth")
