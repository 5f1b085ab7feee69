"""Training from a finished run's encoder: the weights, what records say of it, its floor."""

import json
from pathlib import Path
from shutil import copytree

import pytest

from helpers.bench import Bench, call
from helpers.refusals import fails
from ssl_bench.records.record import PretrainRecord
from ssl_bench.records.workspace import folder_of, read_records
from ssl_bench.tables.names import baseline_of, row_names

DATA = ("--data", "scenes:train=12,test=6")
TOY = ("--image-size", 64, "--width", 0.1, "--workers", 0, *DATA)
STEPS = ("--steps", 2, "--batch-size", 4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parent, autoencoder, of which another training and its floor start."""
    place = tmp_path_factory.mktemp("start") / "runs"
    call("pretrain", "autoencoder", *TOY, *STEPS, "--workspace", place)
    for method, more in (("random", ()), ("context-encoder", STEPS)):
        words = ("pretrain", method, *TOY, *more, "--start", "autoencoder")
        call(*words, "--workspace", place)
    return place


def of(method: str, workspace: Path) -> PretrainRecord:
    return next(r for r in read_records(workspace, "pretrain") if r.method == method)


def test_it_starts_there_and_its_floor_is_that_start(made: Path) -> None:
    parent, floor, child = (of(m, made) for m in ("autoencoder", "random", "context-encoder"))
    digest = parent.details.encoder.digest
    assert child.details.encoder.start == child.identity.start == digest
    assert floor.details.encoder.digest == digest != parent.details.encoder.start
    assert child.details.encoder.digest != digest  # it was trained
    assert child.details.parent == f"autoencoder@{parent.key}"
    assert child.identity.config["start"] == "autoencoder"


def test_it_is_made_again(bench: Bench, made: Path) -> None:
    parent, child = of("autoencoder", made), of("context-encoder", made)
    shown = bench.ok("show", child.key, "--workspace", made).out
    assert f"--start autoencoder@{parent.key[:12]}" in shown
    again = bench("rerun", child.key, "--workers", 0, "--workspace", made)
    assert again.out.endswith("the same, bit for bit\n"), again
    assert bench("verify", made).code == 0


def test_another_start_is_another_run(bench: Bench, made: Path) -> None:
    """The key is of the parent's weights, not of its name alone."""
    keys = {r.key for r in read_records(made, "pretrain")}
    words = ("pretrain", "random", *TOY, "--workspace", made)
    bench.ok(*words, "--start", f"context-encoder@{of('context-encoder', made).key[:6]}")
    bench.ok(*words)
    bench.ok(*words, "--start", "autoencoder")  # is there
    found = read_records(made, "pretrain")
    assert len({r.key for r in found} - keys) == 2
    assert "start" not in found[-1].identity.plain()  # without it, as ever


def test_the_floor_of_a_table_starts_there_too(bench: Bench, made: Path) -> None:
    runs = [r for r in read_records(made, "pretrain") if r.method in ("random", "context-encoder")]
    for run in runs:
        words = ("knn", "--layer", "conv1", "--k", 3, "--workers", 0, *DATA)
        bench.ok(*words, "--encoder", f"{run.method}@{run.key}", "--workspace", made)
    records = read_records(made, "evaluation")
    named = dict(zip(row_names(records), records, strict=True))
    child = next(r for r in records if r.method == "context-encoder")
    floors = {name: r for name, r in named.items() if r.method == "random"}
    floor = baseline_of(child, floors)
    assert floor == "random start=autoencoder"
    encoder = floors[floor].identity.encoder
    assert encoder is not None
    assert encoder.weights == of("autoencoder", made).details.encoder.digest


def test_a_parent_of_another_machine_without_weights(
    bench: Bench, made: Path, tmp_path: Path
) -> None:
    """What came home is read: there the mean colour was rounded otherwise. Nothing starts of it."""
    place = tmp_path / "runs"
    copytree(made, place)
    folder = folder_of(place, of("autoencoder", made))
    (folder / "encoder.safetensors").unlink()
    record = json.loads((folder / "record.json").read_text())
    record["details"]["encoder"]["spec"]["normalization"]["mean"][0] += 3e-10
    (folder / "record.json").write_text(json.dumps(record))
    words = ("pretrain", "context-encoder", *TOY, "--start", "autoencoder", "--workspace", place)
    before = read_records(place, "pretrain")
    bench.ok(*words, *STEPS)
    assert read_records(place, "pretrain") == before
    fails(bench(*words, "--steps", 3, "--batch-size", 4), 1, "encoder.safetensors")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--start", "kmeans-init"), "kmeans-init"),
        (("--start", "autoencoder", "--seed", 1), "seed 1"),
        (("--start", "autoencoder@ffffff"), "has a key that begins with"),
        (("--start", "autoencoder", "--norm", "batch"), "this network"),
    ],
)
def test_a_start_that_is_not_there(bench: Bench, made: Path, more, said) -> None:
    before = read_records(made, "pretrain")
    fails(bench("pretrain", "random", *TOY, *more, "--workspace", made), 2, said)
    assert read_records(made, "pretrain") == before


def test_another_network_or_normalisation_is_refused(bench: Bench, made: Path) -> None:
    reference = f"autoencoder@{of('autoencoder', made).key[:12]}"
    words = ("pretrain", "random", *TOY[:-2], "--start", reference, "--workspace", made)
    fails(bench(*words, *DATA, "--norm", "batch"), 2, "has another norm")
    other = ("--data", "scenes:train=12,test=6,seed=1")
    fails(bench(*words, *other), 2, "has another normalization")


def test_what_makes_its_weights_itself_takes_no_start(bench: Bench, made: Path) -> None:
    words = ("pretrain", "kmeans-init", *TOY, "--images", 2, "--start", "autoencoder")
    fails(bench(*words, "--workspace", made), 2, "kmeans-init makes all of its weights itself")


def test_verify_looks_at_the_start(bench: Bench, made: Path) -> None:
    child = of("context-encoder", made)
    path = folder_of(made, child) / "record.json"
    edited = json.loads(child.text)
    edited["details"]["encoder"]["start"] = "0" * 64
    path.write_text(json.dumps(edited))
    assert "its starting weights are not those of its key" in bench("verify", made).out
    path.write_text(child.text)
