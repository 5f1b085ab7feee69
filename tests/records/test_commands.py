"""Commands that make runs again: by what this machine remembers, else with PATH in its place."""

import json
import shutil
from pathlib import Path

import pytest

from helpers.bench import TOY, call
from helpers.predictions import LESS, changed, stored
from helpers.refusals import fails
from ssl_bench.data.normalization import HALF, IMAGENET
from ssl_bench.encoders.build import own_spec
from ssl_bench.records.command import command_of, encoder_options, without_place
from ssl_bench.records.places import place_of_encoder, remember
from ssl_bench.records.record import EncoderIdentity
from ssl_bench.records.workspace import Run, folder_of, read_records


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("folder:photos", "folder:PATH"),
        ("folder:photos,test=0.25", "folder:PATH,test=0.25"),
        ("voc:VOC2007,train=mine", "voc:PATH,train=mine"),
        ("scenes:train=60,test=20", "scenes:train=60,test=20"),
        ("scenes", "scenes"),
        ("voc07", "voc07"),
        ("voc07-mini", "SET:PATH"),  # a name of its own
    ],
)
def test_a_set_that_is_only_a_name_is_a_place_to_fill_in(name, asked):
    assert without_place(name) == asked


def of_file(workspace, name):
    record = stored(workspace, name, LESS)
    encoder = EncoderIdentity(run=name, weights="w", spec={})
    identity = record.identity.model_copy(update={"encoder": encoder})
    return changed(record, identity=identity, details={"pretraining": None})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timm:resnet18", {"encoder": "timm:resnet18"}),
        ("timm:resnet18 128px", {"encoder": "timm:resnet18", "image_size": 128}),
        ("alexnet weights=a b", {"encoder": "alexnet", "weights": "PATH"}),
        ("torchvision:alexnet 64px weights=checkpoint",
         {"encoder": "torchvision:alexnet", "weights": "PATH", "image_size": 64}),
        ("model", {"encoder": "PATH"}),
    ],
)  # fmt: skip
def test_an_encoder_from_elsewhere_is_asked_for_as_it_was(tmp_path, name, options):
    record = of_file(tmp_path, name)
    assert encoder_options(record) == options
    given = {"encoder": name, "weights": "expA/checkpoint.pth"}
    remember(tmp_path, name, ["w"], given)
    assert encoder_options(record, tmp_path) == given
    assert "expA" in command_of(record, tmp_path)
    assert "expA" not in command_of(record)


@pytest.mark.parametrize("content", ["", "[1]", '{"model w": 3}', '{"model w": {"data": 1}}'])
def test_damaged_places_are_as_none(tmp_path, content):
    (tmp_path / "places.json").write_text(content)
    encoder = EncoderIdentity(run="model", weights="w", spec={})
    assert place_of_encoder(tmp_path, encoder) is None
    remember(tmp_path, "model", ["w"], {"encoder": "a/model.safetensors"})
    assert place_of_encoder(tmp_path, encoder) == {"encoder": "a/model.safetensors"}


def test_precision_is_said_where_the_default_is_another_one_elsewhere(tmp_path):
    """`auto` came to 32 bit on a CPU; on a GPU it would be bf16."""
    settings = {"precision": "32", "steps": 2, "batch_size": 2}
    made = stored(tmp_path, "random", LESS, protocol="finetune/linear-head@1", **settings)
    assert made.identity.config["precision"] == "32"
    assert "--precision" not in command_of(made)  # the protocol's own is 32 bit, everywhere
    config = {"image_size": 96, "seed": 0, "precision": "32"}
    trained = changed(made).model_copy(update={"kind": "pretrain", "method": "autoencoder"})
    identity = made.identity.model_copy(update={"config": config})
    assert "--precision 32" in command_of(trained.model_copy(update={"identity": identity}))


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> tuple[Path, Path]:
    """A workspace with numbers of a weights file with a very long name, and the file."""
    folder = tmp_path_factory.mktemp("toy")
    call("pretrain", "random", *TOY, "--init", "fan-in", "--workspace", folder / "first")
    (run,) = read_records(folder / "first", "pretrain")
    file = folder / f"{'é' * 116}.safetensors"
    shutil.copy(folder_of(folder / "first", run) / "encoder.safetensors", file)
    probe = ("knn", "--layer", "conv1", "--k", 3, "--data", TOY[-1], "--workers", 0)
    call(*probe, "--encoder", file, "--workspace", folder / "runs")
    return folder / "runs", file


def test_a_long_name_is_cut_in_the_folders_name(bench, toy):
    workspace, file = toy
    (record,) = read_records(workspace, "evaluation")
    assert record.method == file.stem
    folder = folder_of(workspace, record)
    assert 250 <= len(folder.name.encode()) <= 255
    assert bench("rerun", record.key, "--workspace", workspace).out.endswith("bit for bit\n")
    words = ("--layer", "conv1", "--k", 3, "--data", TOY[-1], "--workers", 0)
    assert bench("knn", *words, "--encoder", file, "--workspace", workspace).code == 0
    assert read_records(workspace, "evaluation") == [record]  # found again


def test_names_of_any_length_have_folders_of_their_own(tmp_path):
    record = stored(tmp_path, "random", LESS)
    for length in (200, 241, 242, 243, 2000):
        run = Run(tmp_path, type(record), "a" * length, record.identity)
        assert run.folder.name.endswith(f"-{record.key[:12]}")
        assert len(run.folder.name) == min(255, length + 13)


def test_a_file_that_is_not_remembered_is_said(bench, toy, tmp_path):
    shutil.copytree(toy[0], tmp_path / "runs")
    (tmp_path / "runs" / "places.json").unlink()
    (record,) = read_records(tmp_path / "runs", "evaluation")
    fails(bench("rerun", record.key, "--workspace", tmp_path / "runs"), 2, "weights file")


def test_no_path_of_this_machine_is_in_a_record(toy):
    workspace, file = toy
    assert str(file) in json.dumps(
        json.loads((workspace / "places.json").read_text()), ensure_ascii=False
    )
    (path,) = workspace.rglob("record.json")
    assert str(file.parent) not in path.read_text()


@pytest.mark.parametrize(("arch", "normalization"), [("dcgan", HALF), ("alexnet", IMAGENET)])
def test_foreign_weights_see_what_their_trunk_is_trained_with(arch, normalization):
    """Without a network's own, images are normalised as everybody's are: by ImageNet."""
    assert own_spec(arch).normalization == normalization
