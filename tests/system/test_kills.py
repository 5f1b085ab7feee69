"""A suite killed at random moments ends as an undisturbed one; and what tells them apart can fail.

`python tests/helpers/kills.py --kills 50` is the long form.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from helpers.kills import SHORT, Place, Story, changed, differences, experiment, finished
from helpers.refusals import only
from ssl_bench.files import file_digest

Experiment = tuple[Story, list[str], Path]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """The story of four kills, what is wrong, and the folder with both places."""
    root = tmp_path_factory.mktemp("kills")
    return *experiment(root, SHORT, 4, 0), root


def test_a_suite_killed_at_random_moments_ends_as_if_nothing_had_happened(killed):
    story, wrong, _ = killed
    assert not wrong
    assert len(story.kills) == 4
    assert story.processes > 4


def tamper_weight(place: Place) -> None:
    path = only(place.runs, "pretrain/context-encoder-*/encoder.safetensors")
    with safe_open(path, framework="np") as file:
        header = file.metadata()
    weights = load_file(path)
    weights["conv1.0.bias"][0] += 1e-6
    save_file(weights, path, header)


def tamper_prediction(place: Place) -> None:
    path = only(place.runs, "evaluation/knn-dinov2-conv5-random-*/predictions.npz")
    with np.load(path) as found:
        arrays = dict(found)
    arrays["predicted"][7] += 1
    np.savez_compressed(path, **arrays)


def tamper_metric(place: Place) -> None:
    path = only(place.runs, "evaluation/knn-dinov2-conv5-random-*/record.json")
    record = json.loads(path.read_text())
    record["metrics"]["top1"] += 1
    path.write_text(json.dumps(record))


def tear_record(place: Place) -> None:
    path = only(place.runs, "evaluation/knn-dinov2-conv5-random-*/record.json")
    path.write_bytes(path.read_bytes()[:-40])


def remove_record(place: Place) -> None:
    only(place.runs, "pretrain/random-*/record.json").unlink()


def double_run(place: Place) -> None:
    folder = only(place.runs, "pretrain/random-*")
    shutil.copytree(folder, folder.with_name("random-again"))


def double_log_line(place: Place) -> None:
    path = only(place.runs, "pretrain/context-encoder-*/log.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[-1]]))


def leave_checkpoint(place: Place) -> None:
    (only(place.runs, "pretrain/context-encoder-*") / "checkpoint.pt").touch()


def spoil_image(place: Place) -> None:
    path = only(place.cache, "scenes-train-*/images.bin")
    pixels = bytearray(path.read_bytes())
    pixels[1000] ^= 1
    path.write_bytes(pixels)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (tamper_weight, "encoder.safetensors: conv1.0.bias was"),
        (tamper_prediction, "predictions.npz: predicted was"),
        (tamper_metric, "record.json: metrics.top1 was"),
        (tear_record, "record.json is damaged"),
        (remove_record, "record.json is lost"),
        (double_run, "is there 2 times"),
        (double_log_line, "log.jsonl: line 26 was None"),
        (leave_checkpoint, "checkpoint.pt is too much"),
        (spoil_image, "images.bin: content was"),
    ],
)
def test_whatever_a_kill_could_do_is_told(
    killed: Experiment, tmp_path: Path, spoil: Callable[[Place], None], said: str
):
    root = Path(shutil.copytree(killed[2], tmp_path / "copy"))
    spoil(Place(root / "killed"))
    told = differences(Place(root / "whole"), Place(root / "killed"))
    assert any(said in line for line in told), told


def test_what_was_finished_and_has_changed_is_told(tmp_path):
    place = Place(tmp_path)
    one, other = (place.runs / "pretrain" / name / "record.json" for name in ("one", "other"))
    for record in (one, other):
        record.parent.mkdir(parents=True)
        record.write_text("{}")
    before = finished(place)
    assert set(before.values()) == {file_digest(one)}
    one.write_text("{ }")
    other.unlink()
    assert changed(before, before) == []
    assert changed(before, finished(place)) == [
        "runs/pretrain/one/record.json is changed",
        "runs/pretrain/other/record.json is lost",
    ]
