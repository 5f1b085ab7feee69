"""Checkpoints in the layouts of the field's repositories: their own modules' names, made here."""

import argparse
import copy
import json
import sys
import types
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from helpers.checkpoints import State, body_of, encoder_of, features, loaded, named, plain_of
from ssl_bench.encoders.foreign import load_foreign
from ssl_bench.encoders.tensors import read_tensors
from ssl_bench.errors import DataError

RESNET, VIT = "timm:test_resnet", "timm:test_vit"


def network(arch: str) -> Any:
    """A library's own model with the weights that are to be found again."""
    made = timm.create_model(arch.partition(":")[2], **sized(arch))
    made.load_state_dict(plain_of(arch, **sized(arch)))
    return made


def sized(arch: str) -> dict[str, Any]:
    return {"img_size": 64} if arch == VIT else {}


def apart(model: nn.Module) -> nn.Module:
    """Another network of the same names: what must not be taken."""
    made = copy.deepcopy(model)
    for tensor in made.state_dict().values():
        tensor.copy_(tensor * 0.5)
    return made


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLUs between them."""
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    parts = [part for layer in layers for part in (layer, nn.ReLU())]
    return nn.Sequential(*parts[:-1])


def module(**parts: nn.Module | Tensor) -> nn.Module:
    """Parts under their names; tensors are buffers."""
    made = nn.Module()
    for name, part in parts.items():
        if isinstance(part, Tensor):
            made.register_buffer(name, part)
        else:
            made.add_module(name, part)
    return made


def parallel(model: nn.Module) -> State:
    return named("module.", model.state_dict())  # as DataParallel and DDP name it


# ---- each as its repository saves it
def moco_v2() -> Any:
    """facebookresearch/moco: main_moco.py, moco/builder.py."""
    model = network(RESNET)
    model.fc = mlp(model.num_features, 8, 4)
    both = module(encoder_q=model, encoder_k=apart(model), queue=torch.rand(4, 6))
    both.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
    return {"epoch": 200, "arch": "resnet50", "state_dict": parallel(both), "optimizer": {}}


def moco_v3() -> Any:
    """facebookresearch/moco-v3: the base encoder's head is the projector."""
    model = network(VIT)
    model.head = mlp(model.num_features, 8, 4)
    both = module(base_encoder=model, momentum_encoder=apart(model), predictor=mlp(4, 8, 4))
    return {"epoch": 300, "arch": "vit_small", "state_dict": parallel(both), "scaler": {}}


def dino() -> Any:
    """facebookresearch/dino: MultiCropWrapper; the teacher is not in DDP. ViT without its head."""
    model = network(VIT)
    model.head = nn.Identity()
    head = module(mlp=mlp(model.num_features, 8, 4))
    last = nn.Module()
    last.weight_g, last.weight_v = nn.Parameter(torch.ones(5, 1)), nn.Parameter(torch.ones(5, 4))
    head.add_module("last_layer", last)
    whole = module(backbone=model, head=head)
    return {
        "student": parallel(apart(whole)), "teacher": whole.state_dict(), "epoch": 100,
        "args": argparse.Namespace(arch="vit_small"), "dino_loss": {"center": torch.zeros(1, 5)},
    }  # fmt: skip


def dinov2() -> Any:
    """facebookresearch/dinov2's teacher_checkpoint.pth: blocks in chunks, counted through."""
    model = network(VIT)
    model.head = nn.Identity()
    state = {}
    for name, tensor in model.state_dict().items():
        first, *rest = name.split(".")
        chunked = first == "blocks"
        state[".".join([first, str(int(rest[0]) // 4), *rest]) if chunked else name] = tensor
    state["mask_token"] = torch.zeros(1, model.num_features)
    head = module(mlp=mlp(model.num_features, 8, 4)).state_dict()
    return {"teacher": named("backbone.", state) | named("dino_head.", head)
            | named("ibot_head.", head)}  # fmt: skip


def mae() -> Any:
    """facebookresearch/mae: main_pretrain.py; encoder and decoder in one module."""
    model = network(VIT)
    model.head = nn.Identity()
    width = model.num_features
    model.mask_token = nn.Parameter(torch.zeros(1, 1, 8))
    model.decoder_pos_embed = nn.Parameter(torch.zeros(1, 5, 8))
    model.decoder_embed = nn.Linear(width, 8)
    model.decoder_blocks = nn.ModuleList([module(norm1=nn.LayerNorm(8))])
    model.decoder_norm, model.decoder_pred = nn.LayerNorm(8), nn.Linear(8, 12)
    return {"model": model.state_dict(), "optimizer": {}, "epoch": 799, "scaler": {"scale": 1.0},
            "args": argparse.Namespace(lr=1.5e-4)}  # fmt: skip


def vissl() -> Any:
    """facebookresearch/vissl: trunk and heads of a classy_state_dict."""
    trunk = module(_feature_blocks=module(**dict(network(RESNET).named_children())))
    trunk_state = {n: t for n, t in trunk.state_dict().items() if ".fc." not in n}
    heads = module(**{"0": module(clf=mlp(8, 4, 2))}).state_dict()
    model = {"trunk": trunk_state, "heads": heads}
    classy = {"base_model": {"model": model, "meters": {}}, "losses": {}, "num_updates": 9}
    return {"phase_idx": 99, "classy_state_dict": classy, "type": "checkpoint"}


def solo_learn() -> Any:
    """vturrisi/solo-learn: a Lightning module with momentum parts and an online classifier."""
    model = network(RESNET)
    model.fc = nn.Identity()
    whole = module(
        backbone=model, classifier=nn.Linear(8, 5), projector=mlp(8, 8, 4),
        momentum_backbone=apart(model), momentum_projector=mlp(8, 8, 4), queue=torch.rand(2, 4),
    )  # fmt: skip
    return {
        "epoch": 399, "global_step": 7, "pytorch-lightning_version": "2.1.2", "loops": {},
        "state_dict": whole.state_dict(), "callbacks": {}, "optimizer_states": [{"state": {}}],
        "hyper_parameters": {"method": "mocov2plus", "optimizer": {"lr": 0.3}},
    }  # fmt: skip


def lightly() -> Any:
    """lightly's MoCo example: nn.Sequential(*list(resnet.children())[:-1]): numbers for parts."""
    model = network(RESNET)
    trunk = nn.Sequential(*list(model.children())[:-1])
    heads = module(layers=mlp(8, 8, 4))
    whole = module(
        backbone=trunk, projection_head=heads, backbone_momentum=apart(trunk),
        projection_head_momentum=apart(heads),
    )  # fmt: skip
    return {"state_dict": whole.state_dict(), "hyper_parameters": {}, "epoch": 99}


LAYOUTS: dict[str, tuple[Callable[[], Any], str, str, str]] = {
    "MoCo v2": (moco_v2, RESNET, "module.encoder_q.", "fc.0.weight"),
    "MoCo v3": (moco_v3, VIT, "module.base_encoder.", "head.0.weight"),
    "DINO": (dino, VIT, "teacher.backbone.", "student.module.backbone. fits too"),
    "DINOv2": (dinov2, VIT, "teacher.backbone.", "as the library converts them"),
    "MAE": (mae, VIT, "model.", "left out: mask_token (1), decoder_pos_embed (1)"),
    "VISSL": (vissl, RESNET, "model.trunk._feature_blocks.", "tensors elsewhere"),
    "solo-learn": (solo_learn, RESNET, "state_dict.backbone.", "momentum_backbone. fits too"),
    "lightly": (lightly, RESNET, "state_dict.backbone.", "by the place of the part"),
}


def own(arch: str) -> Tensor:
    """What the encoder's layers give with the weights that are to be found."""
    encoder = encoder_of(arch)
    state = body_of(plain_of(arch, **sized(arch)))
    encoder.load_state_dict({f"model.{name}": tensor for name, tensor in state.items()})
    return features(encoder)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_repositorys_own_layout_gives_its_encoder(name, tmp_path):
    make, arch, under, said = LAYOUTS[name]
    found, taken = loaded(arch, make(), tmp_path / "checkpoint_0199.pth.tar")
    assert torch.equal(found, own(arch))
    assert under in taken
    assert said in taken


def test_hydras_settings_beside_the_weights_are_not_needed(tmp_path, monkeypatch):
    """omegaconf, whose objects Lightning pickles with the weights, need not be installed."""
    package = types.ModuleType("omegaconf")
    config = type("DictConfig", (), {"__module__": "omegaconf"})
    package.DictConfig = config  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "omegaconf", package)
    settings: Any = config()
    settings.__dict__.update(_content={"lr": 0.3}, _parent=None)
    content = solo_learn() | {"hyper_parameters": {"cfg": settings}}
    torch.save(content, tmp_path / "last.ckpt")
    monkeypatch.delitem(sys.modules, "omegaconf")
    encoder = encoder_of(RESNET)
    load_foreign(encoder, tmp_path / "last.ckpt")
    assert torch.equal(features(encoder), own(RESNET))


def test_files_of_torchs_first_form_are_read(tmp_path):
    """MoCo's and DeepCluster's .pth.tar of 2019 are no zip archives."""
    path = tmp_path / "moco_v1_200ep_pretrain.pth.tar"
    torch.save(moco_v2(), path, _use_new_zipfile_serialization=False)
    encoder = encoder_of(RESNET)
    load_foreign(encoder, path)
    assert torch.equal(features(encoder), own(RESNET))


def sharded(folder: Path) -> Path:
    """A state dict in two files, and the index that transformers and accelerate write."""
    state = [*plain_of(RESNET).items()]
    parts = {"model-00001-of-00002.safetensors": dict(state[:40]),
             "model-00002-of-00002.safetensors": dict(state[40:])}  # fmt: skip
    for name, part in parts.items():
        save_file(part, folder / name)
    places = {name: file for file, part in parts.items() for name in part}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


def test_shards_are_one_file(tmp_path):
    encoder = encoder_of(RESNET)
    load_foreign(encoder, sharded(tmp_path))
    assert torch.equal(features(encoder), own(RESNET))


@pytest.mark.parametrize("named", ["../outside.safetensors", "gone.safetensors", 3, "x.index.json"])
def test_an_index_reads_only_what_lies_beside_it(named, tmp_path):
    (tmp_path / "inside").mkdir()
    save_file({"a": torch.ones(1)}, tmp_path / "outside.safetensors")
    index = tmp_path / "inside" / "x.index.json"
    index.write_text(json.dumps({"weight_map": {"a": named}}))
    with pytest.raises(DataError, match=r"does not lie beside it|no index of shards"):
        read_tensors(index)


def test_parts_that_are_numbered_otherwise_are_not_taken(tmp_path):
    """A network without one of the parts counts on in another way, and shapes tell."""
    trunk = nn.Sequential(nn.Identity(), *network(RESNET).children())
    torch.save(trunk.state_dict(), tmp_path / "c.pth")
    with pytest.raises(DataError, match=r"in their order all fit: --weights order:c\.pth"):
        load_foreign(encoder_of(RESNET), tmp_path / "c.pth")
