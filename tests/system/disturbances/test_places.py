"""Read-only places, and workspaces that are no folder, are not there, or go away."""

import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import ssl_bench
from helpers.disturbances import (
    KNN,
    STARTING,
    TRAINING,
    Hook,
    ask,
    checked,
    done,
    mounted,
    results,
    use_cache,
    without_privileges,
)
from helpers.refusals import SCENES, contents, fails
from ssl_bench.records.workspace import read_records

# ---- read-only places
READING = [
    "table", "runs", "show {key}", "compare autoencoder random", "run {suite} --workers 0",
    "knn --k 1,3 --layer pool5 --workers 0 --data scenes:train=60,test=20",
    "report --out {out}.html", "table --out {out}", "export {suite} --workers 0 --out {out}",
]  # fmt: skip
WRITING = [
    "pretrain random --image-size 64 --width 0.1 --seed 1 --workers 0 --data {data}",
    "knn --k 1 --layer pool5 --workers 0 --data {data}",
    "table --out {here}", "table --out {here}/tables", "report --out {here}/page.html",
    "export {suite} --workers 0 --out {here}/export", "rerun {key} --workers 0", "import {new}",
]  # fmt: skip
Locked = tuple[Path, list[Hook]]


@pytest.fixture(scope="module", params=["permissions", "mount"])
def locked(
    request: pytest.FixtureRequest, whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Locked]:
    """A finished workspace that nothing can be written to, and what makes it so."""
    folder = tmp_path_factory.mktemp("locked")
    if request.param == "mount":
        with mounted(folder / "disk", "4m") as disk:
            shutil.copytree(whole, disk / "runs")
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            yield disk / "runs", []
        return
    shutil.copytree(whole, folder / "runs")
    lock(folder / "runs")
    yield folder / "runs", [without_privileges]
    lock(folder / "runs", again=True)


def lock(folder: Path, again: bool = False) -> None:
    """Take the right to write from everybody, or give it back."""
    for path in (folder, *folder.rglob("*")):
        mode = 0o555 if path.is_dir() else 0o444
        path.chmod(mode | 0o200 if again else mode)


def line_of(words: str, suite: Path, workspace: Path, tmp_path: Path) -> list[str]:
    """The words of a command on that workspace."""
    places = {
        "suite": suite, "out": tmp_path / "out", "here": workspace, "new": tmp_path / "new",
        "key": read_records(workspace, "evaluation")[0].key, "data": SCENES[1],
    }  # fmt: skip
    return [*words.format(**places).split(), "--workspace", str(workspace)]


@pytest.mark.parametrize("words", READING)
def test_reading_needs_no_right_to_write(locked: Locked, whole, suite, tmp_path, words):
    workspace, hooks = locked
    answer = ask(*line_of(words, suite, workspace, tmp_path), hooks=hooks)
    assert answer.code == 0, answer
    assert answer.out == done(*line_of(words, suite, whole, tmp_path)).out


def test_verification_needs_no_right_to_write(locked: Locked):
    workspace, hooks = locked
    assert done("verify", workspace, hooks=hooks).out == ""
    assert len(ssl_bench.load_records(workspace)) == 6 * 3


@pytest.mark.parametrize("words", WRITING)
def test_writing_without_the_right_to(locked: Locked, suite, workspace, tmp_path, words):
    """One line says where and why."""
    place, hooks = locked
    if "{new}" in words:
        done(*STARTING, "--seed", "1", "--workspace", tmp_path / "new")
    before = contents(place)
    answer = ask(*line_of(words, suite, place, tmp_path), hooks=hooks)
    fails(answer, 1, str(place))
    assert any(reason in answer.err for reason in ("Permission denied", "Read-only file system"))
    assert contents(place) == before


def test_others_can_read_all_of_a_run(whole):
    """Whoever may read the record may read the weights: no file has a mode of its own."""
    modes = {path.name: path.stat().st_mode for path in whole.rglob("*") if path.is_file()}
    assert set(modes.values()) == {modes["record.json"]}, modes


@pytest.fixture
def cache(whole: Path, image_cache: Path, tmp_path: Path) -> Iterator[Path]:
    """The suite's decoded images, and no more can be added."""
    folder = tmp_path / "cache"
    shutil.copytree(image_cache, folder)
    lock(folder)
    yield folder
    lock(folder, again=True)


def test_decoded_images_are_read_from_a_read_only_cache(cache, workspace, run, printed):
    hooks = [partial(use_cache, cache), without_privileges]
    assert done(*run, hooks=hooks).out == printed


@pytest.mark.parametrize("more", [("--data", "scenes:train=67,test=20"), ("--feature-memory", "0")])
def test_nothing_can_be_added_to_a_read_only_cache(cache, copy, more):
    """Images that are not there, features that do not fit into memory."""
    line = (*KNN, "--layer", "conv5", "--encoder", "random", "--workspace", copy, *more)
    answer = ask(*line, hooks=[partial(use_cache, cache), without_privileges])
    fails(answer, 1, str(cache), "Permission denied")


def test_decoded_images_that_cannot_be_read(cache, workspace):
    """A cache of someone else's; the thread that reads ahead meets it first."""
    for path in cache.rglob("images.bin"):
        path.chmod(0)
    words = (*TRAINING, "--workspace", workspace)
    answer = ask(*words, hooks=[partial(use_cache, cache), without_privileges])
    fails(answer, 1, str(cache), "images.bin", "Permission denied")


# ---- workspaces that are no folder, are not there, or go away
@pytest.mark.parametrize("words", ["run {suite} --workers 0", "import {exported}"])
def test_a_file_in_place_of_the_workspace(suite, exported, tmp_path, words):
    file = tmp_path / "file"
    file.write_text("mine")
    line = words.format(suite=suite, exported=exported).split()
    fails(ask(*line, "--workspace", file), 1, str(file), "Not a directory")
    assert file.read_text() == "mine"


@pytest.mark.parametrize("kind", ["file", "nothing"])
@pytest.mark.parametrize(
    "words",
    ["table", "report", "show abc", "rerun abc", "compare a b", "figures filters --out {out}"],
)
def test_nothing_to_read(tmp_path, kind, words):
    place = tmp_path / kind
    if kind == "file":
        place.write_text("mine")
    line = (*words.format(out=tmp_path / "out").split(), "--workspace", place)
    fails(ask(*line), 2)
    assert place.exists() == (kind == "file")


GOING = [
    "ssl_bench.training.loop._Run.save",
    "ssl_bench.evaluation.evaluate.write_predictions",
    "ssl_bench.records.workspace.Run.finish",
]


@pytest.mark.parametrize("place", GOING)
def test_the_workspace_goes_away(start, run, workspace, whole, printed, place):
    running = start(*run, at=place)
    shutil.rmtree(workspace)
    running.go_on()
    fails(running.result(), 1, str(workspace), "No such file or directory")
    assert done(*run).out == printed
    checked(workspace, results(whole))


def test_the_cache_goes_away(start, run, workspace, whole, printed, tmp_path):
    cache = tmp_path / "cache"
    running = start(
        *run, hooks=[partial(use_cache, cache)], at="ssl_bench.evaluation.evaluate.extract"
    )
    shutil.rmtree(cache)
    running.go_on()
    fails(running.result(), 1, str(cache), "No such file or directory")
    assert len(results(workspace)) == 1  # the starting weights are finished
    assert done(*run, hooks=[partial(use_cache, cache)]).out == printed
    checked(workspace, results(whole))
