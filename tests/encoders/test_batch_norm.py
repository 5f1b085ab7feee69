"""`--norm batch`: alexnet as from 2018 on; left out at its default, it leaves keys as they are."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from helpers.bench import TOY
from helpers.predictions import LESS, changed, stored
from helpers.refusals import fails
from ssl_bench import catalogue
from ssl_bench.data.normalization import HALF
from ssl_bench.encoders.alexnet import AlexNet
from ssl_bench.encoders.build import EncoderSpec
from ssl_bench.encoders.encoder import probe
from ssl_bench.encoders.weights import load_encoder, save_encoder, weights_digest
from ssl_bench.records.command import settings_to_state
from ssl_bench.records.workspace import read_records
from ssl_bench.tables.names import baseline_of, row_names
from ssl_bench.training.build import build_pretext
from ssl_bench.training.pretext import EncoderConfig, PretextConfig


def encoder(**settings: Any) -> AlexNet:
    config = EncoderConfig(image_size=64, width=0.1, norm="batch", **settings)
    made = build_pretext("random", config, HALF)[0].encoder
    assert isinstance(made, AlexNet)
    return made


@pytest.mark.parametrize("training", [True, False])
def test_each_stage_is_convolution_statistics_and_relu(training: bool) -> None:
    """Worked with what a batch's own statistics, or those kept, make of each convolution's output.

    Nothing else is between them: no LRN, and pooling before conv2, conv3 and behind conv5.
    """
    net = encoder(init="fan-in").train(training)
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    maps = net(images, net.layers)
    x = images
    for name, place, geometry in (
        ("conv1", 0, {"stride": 4}),
        ("conv2", 1, {"padding": 2, "groups": 2}),
        ("conv3", 1, {"padding": 1}),
        ("conv4", 0, {"padding": 1, "groups": 2}),
        ("conv5", 0, {"padding": 1, "groups": 2}),
    ):
        x = F.max_pool2d(x, 3, 2, ceil_mode=True) if place else x
        weight, bias = state[f"{name}.{place}.weight"], state[f"{name}.{place}.bias"]
        x = F.conv2d(x, weight, bias, **geometry)
        kept = [state[f"{name}.{place + 1}.running_{n}"].view(-1, 1, 1) for n in ("mean", "var")]
        own = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
        mean, var = own if training else kept
        x = F.relu((x - mean) / (var + 1e-5).sqrt())  # scale 1 and shift 0 at the start
        torch.testing.assert_close(maps[name], x, rtol=1e-3, atol=1e-5)


def test_maps_and_parameters_are_those_of_alexnet_and_two_a_channel() -> None:
    plain, batch = AlexNet(), AlexNet(batch_norm=True)
    assert batch.layers == plain.layers
    shapes = [{name: m.shape for name, m in probe(net, 227).items()} for net in (plain, batch)]
    assert shapes[0] == shapes[1]
    counts = [sum(p.numel() for p in net.parameters()) for net in (plain, batch)]
    assert counts[1] - counts[0] == 2 * (96 + 256 + 384 + 384 + 256)


def test_the_default_is_in_no_key_and_no_file(tmp_path) -> None:
    """Of every pretext: its settings, its spec in a record, and the header of its weights."""
    configs = {name: catalogue.pretext(name).Config() for name in catalogue.names("pretext")}
    named = {name for name, config in configs.items() if "norm" in config.model_dump()}
    assert named == {"split-brain"}  # which takes no LRN: its default is batch
    spec = EncoderSpec(arch="alexnet", image_size=64, width=0.1, normalization=HALF)
    assert "norm" not in spec.plain()
    save_encoder(AlexNet(0.1), spec, tmp_path / "w.safetensors")
    assert b"norm\\" not in (tmp_path / "w.safetensors").read_bytes()[:2000]
    assert PretextConfig(norm="batch").model_dump()["norm"] == "batch"


def test_weights_files_keep_statistics(tmp_path) -> None:
    net = encoder()
    net.train()(torch.randn(2, 3, 64, 64), ["conv5"])
    spec = EncoderConfig(image_size=64, width=0.1, norm="batch").spec(HALF)
    digest = save_encoder(net, spec, tmp_path / "w.safetensors")
    read, found = load_encoder(tmp_path / "w.safetensors")
    assert found == spec
    assert weights_digest(read.state_dict()) == digest


def test_settings_left_out_are_stated_where_they_are_set() -> None:
    values = {"norm": "batch", "warmup": 2, "image_size": 64}
    assert settings_to_state(PretextConfig, values) == values


@pytest.mark.parametrize(
    "words",
    [
        ("pretrain", "random", "--arch", "timm:resnet18"),
        ("pretrain", "random", "--arch", "dcgan"),
        ("inspect", "dcgan"),
        ("pretrain", "kmeans-init", "--images", 2),
    ],
)
def test_where_it_makes_no_sense_it_is_refused(bench, workspace, words) -> None:
    more = ("--workspace", workspace, "--workers", 0, "--data", "scenes:train=2,test=2")
    asked = bench(*words, "--norm", "batch", *(more if words[0] == "pretrain" else ()))
    kmeans = "kmeans-init" in words
    fails(asked, 2, "BatchNorm2d" if kmeans else "--norm is for alexnet")
    assert not list(workspace.rglob("record.json"))


def test_rows_and_their_baselines(tmp_path) -> None:
    """The random row of a table is of the same normalisation; rows say BN, and only where it is."""
    records = [
        changed(stored(tmp_path, method, LESS), details={"pretraining": {"seed": 0, **norm}})
        for method in ("random", "autoencoder")
        for norm in ({}, {"norm": "batch"})
    ]
    named = dict(zip(row_names(records), records, strict=True))
    assert [*named] == ["random", "random BN", "autoencoder", "autoencoder BN"]
    floors = {name: named[name] for name in ("random", "random BN")}
    for mark in ("", " BN"):
        assert baseline_of(named[f"autoencoder{mark}"], floors) == f"random{mark}"


def test_a_run_is_made_again(bench, workspace) -> None:
    words = ("autoencoder", *TOY, "--steps", 2, "--batch-size", 4, "--norm", "batch")
    bench.ok("pretrain", *words, "--workspace", workspace)
    (run,) = read_records(workspace, "pretrain")
    assert "--norm batch" in bench.ok("show", run.key, "--workspace", workspace).out
    again = bench.ok("rerun", run.key, "--workers", 0, "--workspace", workspace)
    assert again.out.endswith("bit for bit\n")
