"""`wds:GLOB`: tars that webdataset's own writer writes, and what its own reader reads of them."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.layouts import assert_refused, labels_of, refuses, split_of
from helpers.photos import draw_photo
from ssl_bench import catalogue
from ssl_bench.data.encoded import EncodedImages
from ssl_bench.data.store.squares import open_store
from ssl_bench.data.wds import braced


def photo(seed: int) -> np.ndarray:
    return np.asarray(draw_photo(seed, 24, 16))


def write(pattern: Path, rows: list[dict[str, Any]], maxcount: int = 100) -> None:
    """By webdataset's ShardWriter."""
    webdataset = pytest.importorskip("webdataset")
    pattern.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.ShardWriter(str(pattern), maxcount=maxcount, verbose=0) as writer:
        for place, row in enumerate(rows):
            writer.write({"__key__": f"sample{place:03}", "png": photo(place)} | row)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two shards to train on and one to test on."""
    write(tmp_path / "train-%06d.tar", [{"cls": label} for label in (10, 9, 9, 10, 9)], maxcount=3)
    write(tmp_path / "val-%06d.tar", [{"cls": 9}])
    return tmp_path


@pytest.mark.parametrize(
    "form", ["{}", "{}/train-{{000000..000001}}.tar,test={}/val-*.tar", "{}/train-*.tar"]
)
def test_samples_are_what_webdataset_reads(root: Path, form: str) -> None:
    iterators = pytest.importorskip("webdataset.tariterators")
    split = split_of(f"wds:{form.format(root, root)}")
    theirs = []
    for path in sorted(root.glob("train-*.tar")):
        with open(path, "rb") as file:
            theirs += iterators.group_by_keys(
                iterators.tar_file_expander([{"url": str(path), "stream": file}])
            )
    assert split.classes == ("9", "10")
    assert labels_of(split) == [one["cls"].decode() for one in theirs]
    assert [Path(name).stem for name in split.names] == [one["__key__"] for one in theirs]
    assert isinstance(split, EncodedImages)
    assert [split.read(i) for i in range(5)] == [one["png"] for one in theirs]
    np.testing.assert_array_equal(split.whole(0)[0], photo(0))


def test_of_several_images_the_photograph(tmp_path: Path) -> None:
    """webdataset's writer sorts by name: .depth.png stands before .png."""
    maps = {"depth.png": photo(7), "seg.png": photo(8)}
    write(tmp_path / "a/train-%06d.tar", [{"cls": 1, **maps}, {"json": {"label": 2.0}, **maps}])
    split = split_of(f"wds:{tmp_path / 'a'}")
    assert list(split.names) == ["train-000000/sample000.png", "train-000000/sample001.png"]
    assert labels_of(split) == ["1", "2"]
    np.testing.assert_array_equal(split.whole(1)[0], photo(1))
    write(tmp_path / "b/train-%06d.tar", [{"cls": 1, "jpg": photo(7)}])
    assert list(split_of(f"wds:{tmp_path / 'b'}").names) == ["train-000000/sample000.jpg"]
    write(tmp_path / "c/train-%06d.tar", [{"cls": 1, "ppm": photo(7)}])
    refuses(f"wds:{tmp_path / 'c'}", "sample000 has several images, .png, .ppm")


def test_splits_and_names(root: Path) -> None:
    dataset = catalogue.dataset(f"wds:{root}")
    assert dataset.splits == ("train", "test")
    assert labels_of(dataset.split("test")) == ["9"]
    (root / "classnames.txt").write_text("\n".join(f"class {i}" for i in range(12)))
    assert catalogue.dataset(f"wds:{root}").split("train").classes == ("class 9", "class 10")
    assert_refused(lambda: split_of(f"wds:{root}/train-*.tar", "test"), "test=0.25")
    drawn = split_of(f"wds:{root}/train-*.tar,test=0.4", "test")
    assert sorted(labels_of(drawn), key=str) == ["class 10", "class 9"]


def test_folders_by_split_json_and_several_labels(tmp_path: Path) -> None:
    rows = [{"json": {"label": ["a", "b"]}}, {"json": {"label": "c"}}, {"json": {"text": "d"}}]
    write(tmp_path / "train/%d.tar", rows)
    write(tmp_path / "test/%d.tar", [{"txt": "a caption", "label": "a|c"}])
    assert labels_of(split_of(f"wds:{tmp_path}")) == [{"a", "b"}, {"c"}, set()]
    assert labels_of(split_of(f"wds:{tmp_path}", "test")) == [{"a", "c"}]


def test_a_digest_is_of_the_images_bytes(root: Path, tmp_path: Path) -> None:
    """As of the same files unpacked; and workers, to which the split is handed over, read so."""
    store = open_store(catalogue.dataset(f"wds:{root}"), "train", 16, workers=1)
    for path in sorted(root.glob("train-*.tar")):
        with tarfile.open(path) as tar:
            tar.extractall(tmp_path / "flat", filter="data")
    files = open_store(catalogue.dataset(f"folder:{tmp_path / 'flat'}"), "train", 16, workers=0)
    assert store.index.digests == files.index.digests


def test_braces() -> None:
    assert braced("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert braced("{a,b}/{0..1}") == ["a/0", "a/1", "b/0", "b/1"]
    assert braced("a{b}") == ["a{b}"]


# ---- bad input
def test_bad_samples_are_one_report(root: Path) -> None:
    rows = [{"json": {"label": {"a": 1}}}, {"json": b"{"}, {"cls": b"\xff\xfe"}, {"cls": 9}]
    write(root / "train-9%d.tar", rows)
    parts = ("sample000 has the class", "sample001 has a .json", "sample002 has a .cls")
    refuses(f"wds:{root}", *parts)


def test_bad_shards(root: Path, tmp_path: Path) -> None:
    path = root / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:3000])
    (root / "train-000001.tar").write_bytes(b"no tar")
    refuses(f"wds:{root}", "train-000000.tar cannot be read", "train-000001.tar cannot be read")
    with tarfile.open(path, "w:gz") as tar:
        tar.add(root / "val-000000.tar")
    refuses(f"wds:{path}", "cannot be read as a tar", "unpack a .tar.gz")
    refuses(f"wds:{root}/none-*.tar", "is no file")
    refuses(f"wds:{root}/train-{{000000..000007}}.tar", "train-000002.tar is no file")
    refuses(f"wds:{tmp_path / 'none'}", "is no file")
    (tmp_path / "empty").mkdir()
    refuses(f"wds:{tmp_path / 'empty'}", "has no .tar")


def test_samples_without_a_class(root: Path) -> None:
    write(root / "train-9%d.tar", [{"txt": "a caption"}])
    refuses(f"wds:{root}", "1 of the 6 images of", "have no class")
    write(root / "train-9%d.tar", [{"cls": 9}])
    write(root / "test-%d.tar", [{"txt": "a hidden label"}])
    assert labels_of(split_of(f"wds:{root}", "test")) == ["9"]  # val's
    write(root / "extra-%d.tar", [{"cls": 9}])
    refuses(f"wds:{root}", "extra-0.tar says no split by its name")


def test_classes_that_train_lacks(root: Path) -> None:
    write(root / "val-1%d.tar", [{"cls": 77}])
    refuses(f"wds:{root}", "has the class '77', which train lacks")


def test_images_that_cannot_be_decoded_are_named(root: Path) -> None:
    write(root / "train-9%d.tar", [{"png": b"no image", "cls": 9}, {"png": b"", "cls": 9}])
    name = "train-90/sample00{}.png cannot be read as an image"
    refuses(f"wds:{root}", name.format(0), name.format(1))
    assert json.dumps(list(split_of(f"wds:{root}").names))
