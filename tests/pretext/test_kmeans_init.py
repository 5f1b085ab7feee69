"""The k-means initialisation: clusters found, patches that a filter sees, and the command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import adjusted_rand_score
from torch import Tensor, nn
from torch.nn import functional as F

import pretext.kmeans_init as module
from helpers.bench import Bench, overriding
from helpers.refusals import contents, fails, half_written, only
from pretext.kmeans_init import KMeansConfig, KMeansInit, draw_patches, kmeans_filters
from ssl_bench.catalogue import dataset
from ssl_bench.counter import generator
from ssl_bench.data.normalization import Normalization
from ssl_bench.data.store.squares import ImageStore, open_store
from ssl_bench.encoders.rescale import change_rates, top_of
from ssl_bench.encoders.weights import load_encoder, weights_digest
from ssl_bench.errors import UsageError
from ssl_bench.training.build import build_pretext

SCENES = ("--data", "scenes:train=60,test=20")
TOY = ("--image-size", "64", "--width", "0.1", "--workers", "0")
KMEANS = ("pretrain", "kmeans-init", *TOY, "--images", "40", "--patches", "2000")
NORM = Normalization(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


@pytest.fixture(scope="module")
def store() -> ImageStore:
    return open_store(dataset("scenes:train=60,test=20"), "train", 64, workers=0)


def build(store: ImageStore, **settings: Any) -> KMeansInit:
    values = {"image_size": 64, "width": 0.1, "images": 40, "patches": 2000, **settings}
    pretext, _ = build_pretext("kmeans-init", KMeansConfig(**values), store.normalization)
    assert isinstance(pretext, KMeansInit)
    return pretext


def fitted(store: ImageStore, **settings: Any) -> KMeansInit:
    pretext = build(store, **settings)
    pretext.fit(store, torch.device("cpu"))
    pretext.encoder.eval()
    return pretext


# ---- filters
def test_known_clusters_are_found():
    """Twelve directions of unequal variance, noise around them, an offset for all."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(12, 30)) * np.linspace(1, 20, 30)
    truth = random.integers(12, size=3000)
    patches = centres[truth] + random.normal(0, 0.3, (3000, 30)) + 50
    filters = kmeans_filters(patches.astype(np.float32), 12, seed=0)
    assert filters.shape == (12, 30)
    responses = (patches - patches.mean(0)) @ filters.T
    assert adjusted_rand_score(truth, responses.argmax(1)) > 0.99


def test_filters_are_centroids_behind_a_whitening():
    """Responses of one filter are the products of one vector with patches that are white."""
    random = np.random.default_rng(1)
    mixing = random.normal(size=(20, 20)) * np.logspace(0, -2, 20)
    patches = (random.normal(size=(5000, 20)) @ mixing.T + 3).astype(np.float32)
    filters = kmeans_filters(patches, 8, seed=0)
    centred = patches - patches.mean(0)
    values, vectors = np.linalg.eigh(np.cov(centred.T, bias=True))
    white = centred @ vectors[:, -8:] / np.sqrt(values[-8:])  # the 8 largest, ascending
    centroids = np.linalg.lstsq(white, centred @ filters.T, rcond=None)[0].T
    assert np.allclose(white @ centroids.T, centred @ filters.T, atol=1e-3)
    lengths = np.linalg.norm(centroids, axis=1)
    assert (lengths < 1).all()  # means of vectors of length 1
    assert (lengths > 0.3).all()  # of such that point one way


def test_few_directions_do_for_many_filters():
    patches = np.zeros((500, 10), np.float32)
    patches[:, :2] = np.random.default_rng(0).normal(size=(500, 2))
    filters = kmeans_filters(patches, 6, seed=0)
    assert np.isfinite(filters).all()
    assert len(np.unique(filters.round(4), axis=0)) == 6


@pytest.mark.parametrize(
    "settings",
    [{}, {"stride": 4}, {"padding": 2}, {"stride": (2, 3), "padding": (0, 1), "dilation": (1, 2)}],
)
def test_patches_are_what_the_filters_see(settings):
    inputs = torch.randn(3, 4, 13, 16, generator=generator("inputs"))
    layer = nn.Conv2d(4, 5, (3, 2), **settings)
    patches = torch.from_numpy(draw_patches(layer, inputs, 10**6, generator("draw")))
    unfold: Any = {k: getattr(layer, k) for k in ("dilation", "padding", "stride")}
    every = F.unfold(inputs, (3, 2), **unfold).transpose(1, 2).flatten(0, 1)  # (P, 24)
    assert sorted(patches.tolist()) == sorted(every.tolist())
    with torch.no_grad():  # a filter's response is a number of the layer's output
        responses = patches @ layer.weight[0].flatten() + layer.bias[0]  # type: ignore[index]
        output = layer(inputs)[:, 0].flatten()
    assert torch.allclose(responses.sort().values, output.sort().values, atol=1e-5)


def test_patches_are_drawn_without_repeats_and_by_the_generator():
    inputs, layer = torch.arange(2 * 100.0).view(2, 1, 10, 10), nn.Conv2d(1, 1, 1)
    first, again = (draw_patches(layer, inputs, 50, generator("a")) for _ in range(2))
    other = draw_patches(layer, inputs, 50, generator("b"))
    assert len(np.unique(first)) == 50
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_group_sees_its_own_channels_only(store, monkeypatch):
    seen: list[tuple[int, ...]] = []

    def note(patches: np.ndarray, count: int, seed: int) -> np.ndarray:
        seen.append((patches.shape[1], count, int(patches.sum())))
        return kmeans_filters(patches, count, seed)

    monkeypatch.setattr(module, "kmeans_filters", note)
    pretext = build(store)
    half = torch.zeros(8, 10, 6, 6)
    half[:, 5:] = torch.randn(8, 5, 6, 6, generator=generator("half")).abs()
    layer = nn.Conv2d(10, 12, 3, groups=2)
    monkeypatch.setattr(pretext, "config", KMeansConfig(images=8, patches=100))
    with pytest.raises(Exception, match="l finds 1 different patches for 6 filters"):
        pretext._fill("l", layer, half)
    seen.clear()
    with torch.no_grad():
        pretext._fill("l", layer, half + torch.randn(8, 10, 6, 6, generator=generator("rest")) / 9)
    assert [(width, count) for width, count, _ in seen] == [(45, 6), (45, 6)]
    assert seen[1][2] > 10 * abs(seen[0][2])


# ---- fit


def test_a_fit_gives_even_channels_and_equal_rates(store):
    pretext = fitted(store)
    images = pretext.normalization.apply(store.images(np.arange(60))[..., 4:68, 4:68])
    outputs: list[Tensor] = []

    def note(_layer: nn.Module, _inputs: object, output: Tensor) -> None:
        outputs.append(output)

    for layer in pretext.encoder.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(note)
    with torch.no_grad():
        top_of(pretext.encoder)(images)
    assert len(outputs) == 5
    for output in outputs:
        deviation = output.std((0, 2, 3))
        assert (deviation / deviation.mean()).log().abs().max() < 0.7
    rates = change_rates(pretext.encoder, top_of(pretext.encoder), images, seed=5)
    assert max(rates.values()) < 3 * min(rates.values())  # other crops, other noise


def test_numbers_of_the_record_tell_rates_before_and_after(store):
    numbers = build(store).fit(store, torch.device("cpu"))
    after = [value for name, value in numbers.items() if name.endswith("rate_after")]
    before = [value for name, value in numbers.items() if name.endswith("rate_before")]
    assert len(after) == len(before) == 5
    assert max(after) / min(after) < 1.03 < max(before) / min(before)
    assert numbers["distortion"] < 0.01


def test_the_weights_follow_the_settings_and_nothing_else(store):
    history = iter(range(100))

    def digest(**settings: Any) -> str:
        torch.manual_seed(next(history))  # must not matter
        np.random.seed(next(history))
        return weights_digest(fitted(store, **settings).encoder.state_dict())

    first = digest()
    assert digest() == first
    assert digest(init="fan-in") == first  # all filters are replaced
    assert len({first, digest(seed=1), digest(images=41), digest(patches=1999)}) == 4


def test_the_seed_chooses_the_images(store, monkeypatch):
    asked: list[list[int]] = []

    def note(_store: ImageStore, which: np.ndarray) -> Tensor:
        asked.append(which.tolist())
        return torch.zeros(len(which), 3, 72, 72, dtype=torch.uint8)

    monkeypatch.setattr(ImageStore, "images", note)
    for seed in (0, 0, 1):
        assert build(store, seed=seed)._crops(store).shape == (40, 3, 64, 64)
    assert asked[0] == asked[1]
    assert set(asked[0]) != set(asked[2])
    assert all(len(set(which)) == 40 for which in asked)


@pytest.mark.parametrize("arch", ["torchvision:alexnet", "timm:vgg11"])
def test_chains_of_the_libraries_are_taken(store, arch):
    assert build(store, arch=arch, width=1).encoder.layers


@pytest.mark.parametrize("arch", ["timm:resnet18", "torchvision:resnet18", "timm:vgg11_bn"])
def test_networks_that_are_no_chain_are_refused_by_name(store, arch):
    with pytest.raises(UsageError, match=f"not {arch}: .* is a BatchNorm2d"):
        build(store, arch=arch, width=1)


# ---- the command
def test_the_command_makes_a_record_that_probes_and_tables_take(bench: Bench, workspace: Path):
    where = ("--workspace", workspace)
    made = bench.ok(*KMEANS, *SCENES, *where, "--preview")
    assert "kmeans-init has nothing to preview" in made.err
    record = json.loads(only(workspace, "pretrain/*/record.json").read_text())
    assert record["details"]["fit"]["conv1.0.rate_after"] > 0
    assert record["details"]["encoder"]["digest"] != record["details"]["encoder"]["start"]
    encoder, _ = load_encoder(only(workspace, "pretrain/*/encoder.safetensors"))
    assert weights_digest(encoder.state_dict()) == record["details"]["encoder"]["digest"]
    before = contents(workspace)
    assert bench(*KMEANS, *SCENES, *where).code == 0  # read, not made again
    assert contents(workspace) == before
    probe = bench.ok("linear-probe", *SCENES, *where, "--workers", 0, "--strengths", 2)
    assert "| kmeans-init" in probe.out


def test_killed_and_run_again_it_ends_with_the_same_weights(
    bench, workspace, tmp_path, monkeypatch
):
    class Killed(BaseException):
        pass

    def kill(patches: np.ndarray, count: int, seed: int) -> np.ndarray:
        if patches.shape[1] != 3 * 11 * 11:  # the first layer is done
            raise Killed
        return kmeans_filters(patches, count, seed)

    with monkeypatch.context() as patch:
        patch.setattr(module, "kmeans_filters", kill)
        with pytest.raises(Killed):
            bench(*KMEANS, *SCENES, "--workspace", workspace)
    assert not list(workspace.glob("*/*/record.json"))
    assert not half_written(workspace)
    whole = tmp_path / "whole"
    bench.ok(*KMEANS, *SCENES, "--workspace", workspace)
    bench.ok(*overriding(KMEANS, "--workers", 2), *SCENES, "--workspace", whole)
    records = [only(w, "pretrain/*/record.json").read_text() for w in (workspace, whole)]
    encoders = [json.loads(record)["details"]["encoder"] for record in records]
    assert encoders[0] == encoders[1]


# ---- requests and images that it cannot use
def test_more_images_than_there_are(bench: Bench, workspace: Path):
    result = bench(*overriding(KMEANS, "--images", 61), *SCENES, "--workspace", workspace)
    fails(result, 2, "--images 61", "60 training images", "pass --images 60")
    assert not list(workspace.glob("*/*/record.json"))


@pytest.mark.parametrize(("option", "value"), [("--images", 0), ("--patches", 1)])
def test_impossible_counts(bench: Bench, workspace: Path, option: str, value: int):
    fails(
        bench(*overriding(KMEANS, option, value), *SCENES, "--workspace", workspace),
        2,
        option,
        str(value),
    )


def test_fewer_patches_than_filters(bench: Bench, workspace: Path):
    result = bench(*overriding(KMEANS, "--patches", 9), *SCENES, "--workspace", workspace)
    fails(result, 1, "conv1.0 finds 9 different patches for 10 filters", "--patches")


@pytest.mark.parametrize("shades", [1, 4])
def test_images_without_content(bench: Bench, workspace: Path, tmp_path: Path, shades: int):
    folder = tmp_path / "plain" / "train" / "a"
    folder.mkdir(parents=True)
    for i in range(12):
        colour = (100 + 10 * (i % shades), 120, 140)
        Image.new("RGB", (80, 80), colour).save(folder / f"{i}.png")
    data = ("--data", f"folder:{tmp_path / 'plain'}", "--workspace", workspace)
    result = bench(*overriding(KMEANS, "--images", 12), *data)
    fails(result, 1, f"conv1.0 finds {shades} different patches for 10 filters", "show more")
    assert not list(workspace.glob("*/*/record.json"))
