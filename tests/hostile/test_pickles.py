"""Pickles in place of weights, checkpoints, predictions and cached files are not run."""

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import ssl_bench
from eval.networks.proposals import open_proposals, proposals_path
from helpers.bench import Bench
from helpers.hostile import READERS, RUNS, add_twin, answered, evaluation, go_on, key_in, refused
from helpers.hostile_files import HUGE, npy, pickled, zipped
from helpers.refusals import PROBE, SCENES, only
from helpers.spoilt import named, with_digest
from ssl_bench import catalogue
from ssl_bench.data.store.whole import open_whole
from ssl_bench.errors import DataError

UNPICKLED: dict[str, Callable[[io.BytesIO], object]] = {
    "pickle": pickle.load,
    "zip": lambda file: torch.load(file, weights_only=False),
    "legacy": lambda file: torch.load(file, weights_only=False),
    "npy": lambda file: np.load(file, allow_pickle=True),
    "npz": lambda file: np.load(file, allow_pickle=True)["label"],
}


@pytest.mark.parametrize("kind", UNPICKLED)
def test_these_files_would_run_if_they_were_unpickled(tmp_path: Path, kind: str) -> None:
    """Else the tests below could not fail."""
    mark = tmp_path / "ran"
    content = pickled(mark, kind)
    assert not mark.exists()
    UNPICKLED[kind](io.BytesIO(content))
    assert mark.exists()


@pytest.mark.parametrize("suffix", ["pth", "pt", "bin", "safetensors"])
def test_a_pickle_among_the_weights_is_not_run(bench, workspace, tmp_path, suffix):
    mark, path = tmp_path / "ran", tmp_path / f"weights.{suffix}"
    for kind in ("pickle", "zip", "legacy"):
        path.write_bytes(pickled(mark, kind))
        for words in (("--encoder", path), ("--encoder", "alexnet", "--weights", path)):
            refused(bench(*PROBE, *SCENES, *words, "--workspace", workspace), path)
    assert not mark.exists()


def test_a_stopped_training_goes_on(bench: Bench, stopped: Path) -> None:
    assert "continuing at step 2 of 4" in go_on(bench, stopped).err


@pytest.mark.parametrize("kind", ["pickle", "zip", "legacy"])
def test_a_pickle_as_checkpoint_is_not_run(bench: Bench, stopped: Path, kind: str) -> None:
    mark = stopped / "ran"
    (stopped / "checkpoint.pt").write_bytes(pickled(mark, kind))
    refused(go_on(bench, stopped), stopped / "checkpoint.pt", "damaged")
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["pickle", "npy", "npz", "zip"])
def test_a_pickle_as_predictions_is_not_run(bench: Bench, work: Path, kind: str) -> None:
    folder, mark = evaluation(), work / "ran"
    add_twin()
    (folder / "predictions.npz").write_bytes(pickled(mark, kind))
    with_digest(folder)
    for reader in ("table", "report", "compare"):
        result = bench(*READERS[reader])
        if kind != "zip":  # it is an archive, and holds no array
            refused(result, folder / "predictions.npz")
        answered(result)
    named(bench, RUNS, folder)
    bench.ok("show", key_in(folder)[:12], "--workspace", "runs")
    assert len(ssl_bench.load_records(RUNS)) > 0
    assert not mark.exists()


@pytest.mark.parametrize("name", ["index.json", "images.bin", "names.npy"])
def test_a_pickle_in_the_cache_is_not_run(bench, tiny_photos, tmp_path, monkeypatch, name):
    monkeypatch.setenv("SSL_BENCH_CACHE", str(tmp_path / "cache"))
    small = ("--image-size", 64, "--width", 0.1, "--workers", 0, "--data", f"folder:{tiny_photos}")
    command = ("pretrain", "random", *small, "--workspace", tmp_path / "runs")
    bench.ok(*command)
    path = only(tmp_path / "cache", f"*/{name}")
    path.write_bytes(pickled(tmp_path / "ran", "pickle"))
    refused(bench(*command), path, "damaged")
    assert not (tmp_path / "ran").exists()


BOXES = {
    "pickle": lambda mark: pickled(mark, "npz"),
    "huge": lambda mark: zipped({"boxes.npy": HUGE, "ends.npy": HUGE}),
    "one array": lambda mark: npy((20,), content=bytes(160)),
}


@pytest.mark.parametrize("kind", BOXES)
def test_hostile_proposals_in_the_cache_are_named(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("SSL_BENCH_CACHE", str(tmp_path))
    scenes = catalogue.dataset("scenes:train=2,test=1")
    store = open_whole(scenes, "train", "detection", 64, 96, workers=0)
    path = proposals_path(store)
    path.write_bytes(BOXES[kind](tmp_path / "ran"))
    with pytest.raises(DataError, match=re.escape(str(path))):
        open_proposals(store, "train", workers=0)
    assert not (tmp_path / "ran").exists()
