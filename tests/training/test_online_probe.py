"""`--probe`: what it sees of an encoder in training, and that nothing of the training sees it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from helpers.bench import call
from helpers.refusals import fails, only
from ssl_bench import catalogue
from ssl_bench.data.store.squares import open_store
from ssl_bench.encoders.weights import load_encoder
from ssl_bench.evaluation import online
from ssl_bench.evaluation.online import OnlineProbe, parted
from ssl_bench.pictures.training import draw_training, logs_of
from ssl_bench.training.augment import center_crop

NET = ("--arch", "timm:test_resnet", "--image-size", 32, "--recipe", "small", "--projector", 8)
DATA = ("--data", "scenes:train=60,test=4", "--workers", 0)
# 60 images in steps of 20: epochs end at 3, 6, 9, 12; looks at 6 and 12, and at the last step.
TRAIN = ("pretrain", "simclr", *NET, *DATA, "--steps", 13, "--batch-size", 20)
PROBE = ("--probe", "knn.lightly", "--probe-every", 2)
LOOKS = [6, 12, 13]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same training without a probe, with one, and with one that fits weights."""
    folder = tmp_path_factory.mktemp("probe")
    logreg = ("--probe", "linear-probe", "--probe-every", 4)
    for name, words in (("plain", ()), ("knn", PROBE), ("linear", logreg)):
        call(*TRAIN, *words, "--workspace", folder / name)
    return {name: only(folder / name, "pretrain/simclr-*") for name in ("plain", "knn", "linear")}


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def curve_of(run: Path, name: str = "knn.lightly") -> dict[int, float]:
    return {line["step"]: line[name] for line in lines_of(run) if name in line}


@pytest.mark.parametrize("probed", ["knn", "linear"])
def test_it_changes_no_key_no_weight_and_no_loss(runs: dict[str, Path], probed: str) -> None:
    plain, other = runs["plain"], runs[probed]
    assert plain.name == other.name
    first, second = (json.loads((run / "record.json").read_text()) for run in (plain, other))
    assert first["files"] == second["files"]  # encoder and head, by their bytes
    assert first["metrics"] == second["metrics"]
    losses = [[(line["step"], line["loss"]) for line in lines_of(run)] for run in (plain, other)]
    assert losses[0] == losses[1]


def test_the_curve_is_in_the_log_and_drawn_with_the_losses(runs: dict[str, Path]) -> None:
    assert [*curve_of(runs["knn"])] == LOOKS
    assert [*curve_of(runs["linear"], "linear-probe")] == [12, 13]
    axes = draw_training(logs_of(runs["knn"].parents[1])).axes
    (panel,) = (axis for axis in axes if axis.get_ylabel() == "knn.lightly\nonline probe")
    assert np.asarray(panel.get_lines()[0].get_xdata()).tolist() == LOOKS


def test_the_last_look_is_scikit_learns_neighbours_on_a_part_of_train(
    runs: dict[str, Path],
) -> None:
    """Of the encoder that was saved: cosine, T = 0.1, all images vote where there are few."""
    encoder, spec = load_encoder(runs["knn"] / "encoder.safetensors")
    store = open_store(catalogue.dataset(DATA[1]), "train", 32, workers=0)
    pixels = spec.normalization.apply(center_crop(store.images(slice(0, 60)), 32))
    with torch.no_grad():
        rows = encoder.eval()(pixels, ["pooled"])["pooled"].flatten(1).double().numpy()
    fitted, asked = parted(store.labels)
    kind: Any = KNeighborsClassifier  # typed by its defaults
    voting = kind(len(fitted), metric="cosine", weights=lambda distances: np.exp(-distances / 0.1))
    voting.fit(rows[fitted], store.labels[fitted])
    expected = 100 * voting.score(rows[asked], store.labels[asked])
    assert curve_of(runs["knn"])[13] == pytest.approx(expected)


def test_parts_keep_the_classes_and_are_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.repeat([0, 1, 2, 3], [100, 53, 4, 5])
    fitted, asked = parted(labels)
    assert np.array_equal(np.sort(np.concatenate([fitted, asked])), np.arange(162))
    assert np.bincount(labels[asked], minlength=4).tolist() == [20, 10, 0, 1]
    assert all(np.array_equal(a, b) for a, b in zip(parted(labels), (fitted, asked), strict=True))
    monkeypatch.setattr(online, "IMAGES", 50)
    assert sum(map(len, parted(labels))) == 50


def test_a_continued_run_has_its_looks_once(bench, workspace, runs) -> None:
    """Stopped behind a look, and again in the midst of an epoch."""
    for until in (("--until", 7), ("--until", 12), ()):
        bench.ok(*TRAIN, *PROBE, *until, "--workspace", workspace)
    run = only(workspace, "pretrain/simclr-*/log.jsonl").parent  # kept encoders have none
    assert curve_of(run) == curve_of(runs["knn"])


def test_of_a_finished_run_there_is_nothing_to_look_at(bench, runs) -> None:
    before = lines_of(runs["plain"])
    again = bench.ok(*TRAIN, *PROBE, "--workspace", runs["plain"].parents[1])
    assert f"{runs['plain'].name} is finished: --probe looks while" in again.err
    assert lines_of(runs["plain"]) == before


def test_features_without_a_difference_end_no_training(bench, workspace, monkeypatch) -> None:
    monkeypatch.setattr(
        "ssl_bench.evaluation.features.pool", lambda maps, _: torch.ones(len(maps), 3)
    )
    made = bench.ok(*TRAIN, "--probe", "knn.vissl", "--workspace", workspace)
    assert made.err.count("warning: --probe knn.vissl: layer pooled: all features") == 1
    assert "knn.vissl" not in only(workspace, "pretrain/*/log.jsonl").read_text()


@pytest.mark.parametrize(
    ("probe", "code", "said"),
    [
        ("knn.lightl", 2, "unknown evaluation 'knn.lightl'; did you mean knn.lightly"),
        ("finetune", 2, "--probe finetune: not a probe of frozen features"),
    ],
)
def test_what_is_no_probe_is_refused(bench, workspace, probe: str, code: int, said: str) -> None:
    fails(bench(*TRAIN, "--probe", probe, "--workspace", workspace), code, said)
    assert not workspace.exists()


def test_images_without_labels_are_refused_before_the_training(bench, workspace, tmp_path) -> None:
    for folder in ("flat", "few/train/a", "few/train/b", "few/val/a", "few/val/b"):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(4):
            pixels = np.random.default_rng(i + len(folder)).integers(256, size=(40, 40, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / folder / f"{i}.png")
    net = ("pretrain", "simclr", *NET, "--workers", 0, "--steps", 2, "--batch-size", 2)
    for data, said in (
        ([f"folder:{tmp_path}/flat"], "--probe knn.lightly: these images have no labels"),
        ([f"folder:{tmp_path}/few"], "needs two classes of 5 training images"),
        (["scenes:train=8,test=4", f"folder:{tmp_path}/few"], "is for one set with labels"),
    ):
        sets = [word for one in data for word in ("--data", one)]
        fails(bench(*net, *sets, *PROBE, "--workspace", workspace), 2, said)
    assert not list(workspace.glob("pretrain/*"))


def test_methods_without_steps_have_no_such_option(bench, workspace) -> None:
    made = bench("pretrain", "random", *NET[:4], *DATA, *PROBE, "--workspace", workspace)
    fails(made, 2, "--probe")


def test_a_probe_is_the_protocol_as_it_is() -> None:
    probe = OnlineProbe.of("knn.lightly", 5)
    assert probe.harness.config.deviations() == []
    assert probe.every == 5
