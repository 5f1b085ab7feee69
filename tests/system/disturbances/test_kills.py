"""A suite killed at random moments ends as an undisturbed one; and what tells them apart can fail.

`PYTHONPATH=tests python -m helpers.kills --kills 50` is the long form.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.kills import SHORT, Place, changed, differences, experiment, finished
from helpers.refusals import only
from helpers.spoilt import edit
from ssl_bench.files import file_digest


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The story of four kills, what is wrong, and the folder with both places."""
    root = tmp_path_factory.mktemp("kills")
    return *experiment(root, SHORT, 4, 0), root


def test_a_suite_killed_at_random_moments_ends_as_if_nothing_had_happened(killed):
    story, wrong, _ = killed
    assert not wrong
    assert story.kills == 4
    assert story.processes > 4


def flip(path: Path) -> None:
    """One bit, in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def again(path: Path) -> None:
    """The last line of a log, or a run's folder, stands there twice."""
    if path.is_dir():
        shutil.copytree(path, path.with_name("again"))
    else:
        path.write_text(path.read_text() + path.read_text().splitlines()[-1])


KNN, TRAINED = "runs/evaluation/knn-dinov2-conv5-random-*", "runs/pretrain/context-encoder-*"
SPOILT: dict[str, tuple[str, Callable[[Path], object]]] = {
    "encoder.safetensors: content was": (f"{TRAINED}/encoder.safetensors", flip),
    "predictions.npz: content was": (f"{KNN}/predictions.npz", flip),
    "images.bin: content was": ("cache/scenes-train-*/images.bin", flip),
    "metrics.top1 was": (KNN, lambda path: edit(path, lambda r: r["metrics"].update(top1=101.0))),
    "record.json is damaged": (
        f"{KNN}/record.json", lambda path: path.write_bytes(path.read_bytes()[:-40])
    ),
    "record.json is lost": ("runs/pretrain/random-*/record.json", Path.unlink),
    "is there 2 times": ("runs/pretrain/random-*", again),
    "log.jsonl: 16|": (f"{TRAINED}/log.jsonl", again),
    "checkpoint.pt is too much": (TRAINED, lambda path: (path / "checkpoint.pt").touch()),
}  # fmt: skip


@pytest.mark.parametrize("said", SPOILT)
def test_whatever_a_kill_could_do_is_told(killed, tmp_path, said):
    root = Path(shutil.copytree(killed[2], tmp_path / "copy"))
    pattern, spoil = SPOILT[said]
    spoil(only(root / "killed", pattern))
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
