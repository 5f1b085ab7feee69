"""Decoding that is interrupted goes on where it stopped, to the same store byte by byte."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.layouts import photographs
from helpers.whole import opened
from ssl_bench import catalogue
from ssl_bench.data.image_files import ImageFiles
from ssl_bench.data.store.cache import Stored
from ssl_bench.data.store.journal import JOURNAL
from ssl_bench.data.store.squares import ImageStore, open_store

COUNT = 40
# Says at its end which images it decoded; dies at the image that is named, if one is.
PROCESS = """
import os, signal, sys
from ssl_bench import catalogue
from ssl_bench.data.image_files import ImageFiles
from ssl_bench.data.store.squares import open_store

load, seen, (root, last) = ImageFiles.load, [], sys.argv[1:]

def counted(self, index, size, smallest):
    if index == int(last):
        os.kill(os.getpid(), signal.SIGKILL)
    seen.append(index)
    return load(self, index, size, smallest)

ImageFiles.load = counted
open_store(catalogue.dataset(f"folder:{root}"), "train", 16, workers=0, skip_bad_images=True)
print(*seen)
"""


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """COUNT photographs, one of them damaged, and a cache of their own."""
    monkeypatch.setenv("SSL_BENCH_CACHE", str(tmp_path / "cache"))
    root = photographs(tmp_path / "set", *(f"train/{i % 2}/{i:02}.png" for i in range(COUNT)))
    (root / "train/0/04.png").write_text("no image")
    return root


def store_of(root: Path) -> ImageStore:
    dataset = catalogue.dataset(f"folder:{root}")
    return open_store(dataset, "train", 16, workers=0, skip_bad_images=True)


def taken_away(store: Stored) -> dict[str, bytes]:
    """The files of a store, which is removed."""
    contents = {path.name: path.read_bytes() for path in store.folder.iterdir()}
    shutil.rmtree(store.folder)
    return contents


def start(root: Path, last: int = -1) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROCESS, str(root), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_decoding_is_continued_by_one_of_two(photos: Path) -> None:
    whole = taken_away(store_of(photos))
    killed = start(photos, last=30)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    both = [start(photos) for _ in range(2)]
    told = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    decoded = sorted(sorted(map(int, out.split())) for out, _ in told)
    assert decoded[0] == []  # who waited
    first = decoded[1][0]
    assert 0 < first <= 30
    assert decoded[1] == [*range(first, COUNT)]
    assert any(f"going on after {first} images" in said for _, said in told)
    store = store_of(photos)
    assert taken_away(store) == whole
    assert len(store) == COUNT - 1
    assert [name for name in os.listdir(store.folder.parent) if name.endswith("decoding")] == []


def stopped(root: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> Path:
    """Ctrl-C at an image; the folder that is left."""
    load = ImageFiles.load

    def stop(self: ImageFiles, index: int, size: int, smallest: int) -> object:
        if index == at:
            raise KeyboardInterrupt
        return load(self, index, size, smallest)

    with monkeypatch.context() as patch:
        patch.setattr(ImageFiles, "load", stop)
        with pytest.raises(KeyboardInterrupt):
            store_of(root)
    (left,) = Path(os.environ["SSL_BENCH_CACHE"]).glob(".*.decoding")
    return left


@pytest.mark.parametrize(
    "damage", ["none", "torn line", "pixels lost", "pixels ahead", "no journal"]
)
def test_what_is_left_is_believed_as_far_as_its_pixels_go(photos, monkeypatch, damage) -> None:
    whole = taken_away(store_of(photos))
    left = stopped(photos, monkeypatch, at=20)
    journal, pixels = left / JOURNAL, left / "images.bin"
    assert len(journal.read_bytes().splitlines()) >= 16  # whole batches of eight
    if damage == "torn line":
        journal.write_bytes(journal.read_bytes()[:-30])
    elif damage == "pixels lost":
        os.truncate(pixels, pixels.stat().st_size // 2)
    elif damage == "pixels ahead":
        pixels.write_bytes(pixels.read_bytes() + b"x" * 1000)
    elif damage == "no journal":
        journal.unlink()
    assert taken_away(store_of(photos)) == whole


def test_whole_images_with_masks_and_boxes_go_on_too(year: Path, monkeypatch) -> None:
    for task in ("segmentation", "detection"):
        whole = taken_away(opened(year, task, 30))
        with monkeypatch.context() as patch:
            split = type(catalogue.dataset(f"voc:{year}").split("train", task))
            read = split.whole

            def stop(self, index, read=read):
                if index == 2:
                    raise KeyboardInterrupt
                return read(self, index)

            patch.setattr(split, "whole", stop)
            patch.setattr("ssl_bench.data.store.packing.BATCH", 1)
            with pytest.raises(KeyboardInterrupt):
                opened(year, task, 30)
        assert taken_away(opened(year, task, 30)) == whole


def test_a_store_of_before_is_read_as_it_is(photos: Path) -> None:
    """With names, labels and digests in index.json."""
    store = store_of(photos)
    plain = json.loads(store.index.model_dump_json())
    assert plain["names"] == [
        f"{i % 2}/{i:02}.png" for k in (0, 1) for i in range(k, COUNT, 2) if i != 4
    ]
    for path in store.folder.glob("*.npy"):
        path.unlink()
    (store.folder / "index.json").write_text(json.dumps(plain))
    again = store_of(photos)
    assert again.index == store.index
    assert again.folder == store.folder
    np.testing.assert_array_equal(again.labels, store.labels)
