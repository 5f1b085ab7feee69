"""`hf:FOLDER`: transformers' own models give their maps and vectors by layer, as saved by it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.refusals import fails, only
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.from_transformers import open_transformers
from ssl_bench.errors import DataError, UsageError
from ssl_bench.evaluation.reference import Reference

transformers = pytest.importorskip("transformers", reason="pip install 'ssl-bench[hf]' to run this")

TOKENS: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 56,
}  # fmt: skip
MAPS: dict[str, Any] = {"hidden_sizes": [8, 16, 16, 24], "depths": [1, 1, 1, 1]}
CONFIGS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "vit": (transformers.ViTConfig, "ViTModel",
            TOKENS | {"patch_size": 8, "intermediate_size": 64}),
    "dinov2": (transformers.Dinov2Config, "Dinov2Model", TOKENS | {"patch_size": 14}),
    "registers": (transformers.Dinov2WithRegistersConfig, "Dinov2WithRegistersModel",
                  TOKENS | {"patch_size": 14, "num_register_tokens": 4}),
    "convnext": (transformers.ConvNextConfig, "ConvNextModel", MAPS),
    "resnet": (transformers.ResNetConfig, "ResNetModel", MAPS | {"embedding_size": 8}),
}  # fmt: skip


def model_of(kind: str) -> Any:
    config, name, settings = CONFIGS[kind]
    torch.manual_seed(0)
    return getattr(transformers, name)(config(**settings)).eval()


def saved(kind: str, folder: Path, **processor: Any) -> Path:
    """A folder as `save_pretrained` writes it, with a preprocessor_config.json if one is given."""
    model_of(kind).save_pretrained(folder)
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def opened(folder: Path, size: int | None = None) -> tuple[Encoder, Any]:
    return open_transformers(f"hf:{folder}", size)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("size", [56, 112])
@torch.no_grad()
def test_layers_are_the_models_hidden_states(kind, size, tmp_path):
    """Also at a size that a transformer was not built for, whose positions it resamples."""
    encoder, _ = opened(saved(kind, tmp_path / "net"), size)
    model, images = model_of(kind), torch.randn(2, 3, size, size)
    options = {"interpolate_pos_encoding": True} if kind == "vit" else {}
    own = model(images, output_hidden_states=True, **options)
    found = encoder.eval()(images, encoder.layers)
    for layer, hidden in zip(encoder.maps, own.hidden_states[1:], strict=True):
        if hidden.ndim == 3:  # tokens of a grid behind class and register tokens
            side = size // model.config.patch_size
            hidden = hidden[:, -(side**2) :].transpose(1, 2).unflatten(2, (side, side))
        assert torch.equal(found[layer], hidden)
    vector = own.last_hidden_state[:, 0] if kind in ("vit", "dinov2", "registers") else None
    vector = own.pooler_output.flatten(1) if vector is None else vector
    assert torch.equal(found["pooled"].flatten(1), vector)


@pytest.mark.parametrize(("kind", "fits"), [("vit", 64), ("dinov2", 70), ("registers", 70)])
def test_images_are_whole_patches(kind, fits, tmp_path):
    """The model takes others, and leaves out what is over."""
    folder = saved(kind, tmp_path / "net")
    with pytest.raises(UsageError, match=f"such as {fits}, not 60"):
        opened(folder, 60)
    opened(folder, fits)
    opened(saved("convnext", tmp_path / "maps"), 60)


def test_nothing_runs_behind_the_last_layer(tmp_path):
    encoder: Any = opened(saved("vit", tmp_path / "net"))[0]
    ran = []
    encoder.model.layernorm.register_forward_hook(lambda *_: ran.append(1))
    encoder(torch.randn(1, 3, 56, 56), ["layer1"])
    assert not ran


@pytest.mark.parametrize(
    ("processor", "size", "mean"),
    [
        ({"size": {"height": 40, "width": 40}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3},
         40, 0.5),
        ({"size": {"shortest_edge": 64}, "crop_size": {"height": 48, "width": 48},
          "image_mean": [0.1] * 3, "image_std": [0.2] * 3}, 48, 0.1),
        ({"size": 32, "do_normalize": False}, 32, 0.0),
    ],
)  # fmt: skip
def test_size_and_normalisation_are_the_preprocessors(processor, size, mean, tmp_path, capsys):
    _, spec = opened(saved("convnext", tmp_path / "net", **processor))
    assert (spec.image_size, spec.normalization.mean[0]) == (size, mean)
    assert "warning" not in capsys.readouterr().err


def test_what_nothing_says_is_assumed_with_a_warning(tmp_path, capsys):
    _, spec = opened(saved("resnet", tmp_path / "net"))
    assert spec.image_size == 224
    said = "hf:net does not say its normalisation and its image size: ImageNet's and 224 px assumed"
    assert said in capsys.readouterr().err


def test_a_classifiers_folder_is_its_encoder(tmp_path):
    """The pooler that it lacks is no part: two loads are one encoder."""
    config = CONFIGS["vit"][0](**CONFIGS["vit"][2])
    model = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "net")
    first, second = (Reference(f"hf:{tmp_path / 'net'}", tmp_path) for _ in range(2))
    assert first.digest == second.digest
    images = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        own = model.vit(images).last_hidden_state[:, 0]
        assert torch.equal(first.encoder.eval()(images, ["pooled"])["pooled"].flatten(1), own)


def test_weights_that_lack_something_are_refused(tmp_path):
    folder = saved("convnext", tmp_path / "net")
    state = load_file(folder / "model.safetensors")
    name = next(name for name in state if "stages.2" in name)
    save_file({n: t for n, t in state.items() if n != name}, folder / "model.safetensors",
              {"format": "pt"})  # fmt: skip
    with pytest.raises(DataError, match="hf:net lacks weights: "):
        opened(folder)


def test_another_kind_and_no_folder_are_one_line(tmp_path, monkeypatch):
    transformers.BertConfig().save_pretrained(tmp_path / "text")
    with pytest.raises(UsageError, match=r"hf:text is of the kind bert, and read are convn.*file:"):
        opened(tmp_path / "text")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="hf:empty cannot be had from"):
        opened(tmp_path / "empty")


def test_damaged_weights_are_one_line(tmp_path):
    folder = saved("vit", tmp_path / "net")
    (folder / "model.safetensors").write_bytes(b"{" * 100)
    with pytest.raises(DataError, match="hf:net cannot be had from"):
        opened(folder)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / "model.safetensors").write_text(pointer)
    with pytest.raises(DataError, match=r"model\.safetensors is a pointer of Git LFS"):
        opened(folder)


def test_it_is_measured_and_fine_tuned(tmp_path, bench):
    folder = saved("resnet", tmp_path / "net", size={"height": 64, "width": 64},
                   image_mean=[0.5] * 3, image_std=[0.5] * 3)  # fmt: skip
    words = ("--encoder", f"hf:{folder}", "--data", "scenes:train=20,test=10", "--workers", 0,
             "--workspace", tmp_path / "runs")  # fmt: skip
    assert "| hf:net   |" in bench.ok("knn", "--k", 3, *words).out
    record = json.loads(only(tmp_path / "runs", "evaluation/*/record.json").read_text())
    assert record["identity"]["layer"] == "pooled"
    bench.ok("finetune", "--protocol", "linear-head", "--steps", 2, "--batch-size", 4, *words)
    fails(bench("knn", "--layer", "stage9", *words), 2, "unknown layer 'stage9'")
