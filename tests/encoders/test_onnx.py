"""ONNX: what is written gives the encoder's maps by onnxruntime; what is read is evaluated."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers.bench import call
from helpers.refusals import fails, only
from ssl_bench.data.normalization import HALF
from ssl_bench.encoders.build import EncoderSpec, build_encoder
from ssl_bench.encoders.from_onnx import open_onnx
from ssl_bench.encoders.to_onnx import export_onnx
from ssl_bench.errors import DataError, UsageError
from ssl_bench.evaluation.reference import Reference

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'ssl-bench[onnx]' to run this")
pytest.importorskip("onnxscript")

DATA = ("--data", "scenes:train=20,test=10", "--workers", 0)


def spec_of(arch: str, width: float = 1.0) -> EncoderSpec:
    return EncoderSpec(arch=arch, image_size=64, width=width, normalization=HALF)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """conv2 and pool5 of a run's AlexNet, and the workspace of the run."""
    folder = tmp_path_factory.mktemp("onnx")
    call("pretrain", "random", "--image-size", 64, "--width", 0.1, *DATA,
         "--workspace", folder / "runs")  # fmt: skip
    call("export-onnx", "random", "--layer", "conv2", "--layer", "pool5",
         "--out", folder / "net.onnx", "--workspace", folder / "runs")  # fmt: skip
    return folder


def test_onnxruntime_gives_the_encoders_maps_of_any_number_of_images(exported):
    encoder = Reference("random", exported / "runs").encoder.eval()
    session = onnxruntime.InferenceSession(str(exported / "net.onnx"))
    for batch in (1, 5):
        images = torch.randn(batch, 3, 64, 64)
        found = session.run(["conv2", "pool5"], {"images": images.numpy()})
        with torch.no_grad():
            expected = encoder(images, ["conv2", "pool5"])
        for layer, maps in zip(("conv2", "pool5"), found, strict=True):
            assert np.allclose(maps, expected[layer], atol=1e-5 * float(expected[layer].max()))


@pytest.mark.parametrize("arch", ["torchvision:resnet18", "timm:test_vit"])
def test_networks_of_libraries_are_written_too(arch, tmp_path):
    """torchvision's are left by an exception behind the last layer, which no tracer follows."""
    encoder, spec = build_encoder(spec_of(arch)), spec_of(arch)
    layers = [encoder.maps[-1], "pooled"]
    assert export_onnx(encoder, spec, layers, tmp_path / "net.onnx") < 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    assert [output.name for output in session.get_outputs()] == layers
    assert len(session.get_outputs()[1].shape) == 2


def test_a_graph_that_deviates_is_not_kept(tmp_path, monkeypatch):
    encoder = build_encoder(spec_of("alexnet", 0.1))
    other = build_encoder(spec_of("alexnet", 0.1))
    right = encoder.forward

    def forward(images: Tensor, layers: Any) -> Any:
        return (other if torch.compiler.is_exporting() else right)(images, layers)

    monkeypatch.setattr(encoder, "forward", forward)
    with pytest.raises(DataError, match="deviates from the encoder by"):
        export_onnx(encoder, spec_of("alexnet", 0.1), ["pool5"], tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


# ---- as an encoder
def test_what_was_exported_is_measured_as_it_was(exported, tmp_path, bench):
    knn = ("knn", "--k", 3, "--layer", "pool5", *DATA)
    onnx = f"onnx:{exported / 'net.onnx'}"
    bench.ok(*knn, "--encoder", onnx, "--workspace", tmp_path / "runs")
    bench.ok(*knn, "--encoder", "random", "--workspace", exported / "runs")
    record = json.loads(only(tmp_path / "runs", "evaluation/*/record.json").read_text())
    found, own = (np.load(only(space, "evaluation/*/predictions.npz"))
                  for space in (tmp_path / "runs", exported / "runs"))  # fmt: skip
    assert all(np.array_equal(found[name], own[name]) for name in own)
    spec = Reference("random", exported / "runs").spec
    identity = record["identity"]["encoder"]
    assert identity["run"] == "onnx:net.onnx"
    assert identity["spec"]["image_size"] == 64
    assert identity["spec"]["normalization"] == json.loads(spec.normalization.model_dump_json())


def test_it_is_not_trained(exported, tmp_path, bench):
    words = ("--encoder", f"onnx:{exported / 'net.onnx'}", *DATA, "--workspace", tmp_path / "runs")
    said = "onnx:net.onnx cannot be trained: it is for evaluations of frozen features"
    fails(bench("finetune", "--layer", "pool5", *words), 2, said)
    weights = ("--weights", exported / "net.onnx")
    fails(bench("knn", *words, *weights), 2, "has its weights in it: leave out --weights")


def written(model: nn.Module, path: Path, *, batch: int = 1, size: int = 32) -> Path:
    """A graph as others write it: one batch size, no word of normalisation."""
    torch.onnx.export(model, (torch.zeros(batch, 3, size, size),), str(path), dynamo=True,
                      verbose=False, external_data=False)  # fmt: skip
    return path


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def test_a_strangers_file_for_one_image_is_read_and_what_is_assumed_is_said(tmp_path, capsys):
    model = net()
    encoder, spec = open_onnx(f"onnx:{written(model, tmp_path / 'net.onnx')}")
    said = "warning: onnx:net.onnx does not say its normalisation: ImageNet's assumed"
    assert said in capsys.readouterr().err
    assert (encoder.layers, spec.image_size) == (("pooled",), 32)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        found = encoder(images, ["pooled"])["pooled"]
        assert torch.allclose(found, model(images)[..., None, None], atol=1e-5)
    with pytest.raises(UsageError, match="made for 32 px"):
        open_onnx(f"onnx:{tmp_path / 'net.onnx'}", 64)


@pytest.mark.parametrize("half", [False, True])
def test_a_file_for_four_images_takes_any_number(half, tmp_path):
    model: Any = net().half() if half else net()
    path = tmp_path / "net.onnx"
    example = torch.zeros(4, 3, 32, 32, dtype=torch.float16 if half else torch.float32)
    torch.onnx.export(model, (example,), str(path), verbose=False, external_data=False)
    encoder, _ = open_onnx(f"onnx:{path}")
    images = torch.randn(6, 3, 32, 32)
    with torch.no_grad():
        found, expected = encoder(images, ["pooled"])["pooled"].flatten(1), model.float()(images)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=2e-3 if half else 1e-5)


def test_images_with_their_channels_last_are_refused(tmp_path):
    class Last(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((1, 2))

    path = tmp_path / "net.onnx"
    torch.onnx.export(Last().eval(), (torch.zeros(1, 32, 32, 3),), str(path), verbose=False)
    with pytest.raises(UsageError, match=r"takes inputs of \[\[1, 32, 32, 3\]\], not one of"):
        open_onnx(f"onnx:{path}")


def test_two_files_are_two_encoders(tmp_path):
    first = open_onnx(f"onnx:{written(net(), tmp_path / 'a.onnx')}")[0].state_dict()
    changed: Any = net()
    with torch.no_grad():
        changed[0].weight += 1
    second = open_onnx(f"onnx:{written(changed, tmp_path / 'a.onnx')}")[0].state_dict()
    assert not torch.equal(first["sha256"], second["sha256"])


@pytest.mark.parametrize("content", [None, b"", b"no graph"])
def test_what_is_no_graph_is_one_line(content, tmp_path):
    if content is not None:
        (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(UsageError, match=r"there is no file|cannot be used") as refused:
        open_onnx(f"onnx:{tmp_path / 'net.onnx'}")
    assert "\n" not in str(refused.value)
