"""The digests that stand in the keys of committed records are those of the same images today."""

from pathlib import Path

import numpy as np
import pytest

from helpers.places import RESULTS
from ssl_bench import catalogue
from ssl_bench.data.dataset import SplitName, Task
from ssl_bench.data.scenes.dataset import ScenesSplit
from ssl_bench.data.store.squares import open_store
from ssl_bench.data.store.whole import open_whole
from ssl_bench.records.workspace import read_records

SPLITS: tuple[SplitName, ...] = ("train", "test")

pytestmark = pytest.mark.usefixtures("cache")  # its own for each test


def committed(suite: str, data: str, protocol: str, split: SplitName) -> set[str]:
    """Of all evaluations of a suite on a set, by protocols that begin so."""
    found = {
        record.identity.data[split]
        for record in read_records(RESULTS / suite, "evaluation")
        if record.data == data
        if record.identity.protocol.startswith(protocol)
    }
    assert found, "no record to compare with"
    return found


@pytest.mark.parametrize("split", SPLITS)
def test_digests_of_the_scenes(split: SplitName, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scene's digest is of its number and the renderer's version: nothing is drawn here."""

    def blank(self: ScenesSplit, index: int, size: int, smallest: int) -> tuple[np.ndarray, str]:
        return np.zeros((size, size, 3), np.uint8), self._digest(index)

    monkeypatch.setattr(ScenesSplit, "load", blank)
    store = open_store(catalogue.dataset("scenes"), split, 8, workers=0)
    assert {store.index.digest} == committed("quickstart", "scenes", "linear/", split)


@pytest.mark.photos
def test_digest_of_a_folder_of_photographs(photos: Path) -> None:
    store = open_store(catalogue.dataset(f"folder:{photos / 'imagenette-128'}"), "test", 8)
    assert {store.index.digest} == committed("voc-mini", "folder:imagenette-128", "linear/", "test")


@pytest.mark.photos
def test_digest_of_squares_with_several_labels(photos: Path) -> None:
    voc = catalogue.dataset(f"voc:{photos / 'VOCdevkit' / 'VOC2007'},name=voc07-mini")
    store = open_store(voc, "test", 8)
    assert {store.index.digest} == committed("voc-mini", "voc07-mini", "svm/", "test")


@pytest.mark.photos
@pytest.mark.parametrize(
    ("year", "name", "task"),
    [("VOC2007", "voc07-mini", "detection"), ("VOC2012", "voc12-animals", "segmentation")],
)
def test_digests_of_whole_images(photos: Path, year: str, name: str, task: Task) -> None:
    voc = catalogue.dataset(f"voc:{photos / 'VOCdevkit' / year},name={name}")
    store = open_whole(voc, "test", task, 8, 32)
    assert {store.index.digest} == committed("voc-mini", name, f"{task}/", "test")
