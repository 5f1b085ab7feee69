"""Public sets by one word, on tiny files in each set's own layout, which torchvision opens too."""

import hashlib
import json
import os
import pickle
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from torchvision import datasets
from torchvision.datasets import cifar, flowers102, svhn

from helpers.bench import TOY, Bench
from helpers.layouts import assert_refused, labels_of, photographs
from helpers.refusals import fails
from helpers.server import Server, serving
from ssl_bench import catalogue
from ssl_bench.data import torchvision_sets
from ssl_bench.data.images import load_whole
from ssl_bench.data.store.squares import open_store
from ssl_bench.data.torchvision_sets import SETS

RANDOM = np.random.default_rng(0)
Sizes = dict[str, int]


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content)
    elif isinstance(content, np.ndarray):
        path.write_bytes(content.tobytes())
    else:
        path.write_bytes(pickle.dumps(content))


# ---- each set's layout, as torchvision's documentation and code have it
def make_cifar(root: Path, folder: str, files: dict[str, int], labels: str, meta: str) -> Sizes:
    for name, count in files.items():
        batch = {"data": RANDOM.integers(0, 256, (count, 3072)).astype(np.uint8)}
        write(root / folder / name, batch | {labels: [i % 2 for i in range(count)]})
    key = labels.removesuffix("s").replace("label", "label_names")
    write(root / folder / meta, {key: ["apple", "bear"]})
    test = sum(count for name, count in files.items() if "test" in name)
    return {"train": sum(files.values()) - test, "test": test}


def make_cifar10(root: Path) -> Sizes:
    files = {f"data_batch_{i}": 2 for i in range(1, 6)} | {"test_batch": 4}
    return make_cifar(root, "cifar-10-batches-py", files, "labels", "batches.meta")


def make_cifar100(root: Path) -> Sizes:
    files = {"train": 6, "test": 4}
    return make_cifar(root, "cifar-100-python", files, "fine_labels", "meta")


def make_stl10(root: Path) -> Sizes:
    sizes = {"train": 3, "test": 2, "unlabeled": 5}
    for name, count in sizes.items():
        planes = RANDOM.integers(0, 256, (count, 3, 96, 96)).astype(np.uint8)
        write(root / f"stl10_binary/{name}_X.bin", planes)
        if name != "unlabeled":
            write(root / f"stl10_binary/{name}_y.bin", np.arange(1, count + 1, dtype=np.uint8))
    write(root / "stl10_binary/class_names.txt", "airplane\nbird\ncar\n")
    write(root / "stl10_binary/fold_indices.txt", "0 1\n")
    return sizes


def make_svhn(root: Path) -> Sizes:
    sizes = {"train": 4, "test": 3, "extra": 5}
    (root / "svhn").mkdir()
    for name, count in sizes.items():
        pixels = RANDOM.integers(0, 256, (32, 32, 3, count)).astype(np.uint8)
        labels = np.arange(10, 10 - count, -1, dtype=np.uint8)[:, None]  # 10 is the digit 0
        savemat(root / f"svhn/{name}_32x32.mat", {"X": pixels, "y": labels})
    return sizes


def make_flowers102(root: Path) -> Sizes:
    folder = root / "flowers-102"
    photographs(folder, *(f"jpg/image_{i:05}.jpg" for i in range(1, 8)))
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 2, 1, 2, 3, 3, 1]], np.uint8)})
    ids = {"trnid": [[7, 2]], "valid": [[1, 4, 5]], "tstid": [[3, 6]]}
    savemat(folder / "setid.mat", {key: np.array(value) for key, value in ids.items()})
    return {"train": 5, "test": 2}


def make_pets(root: Path) -> Sizes:
    folder = root / "oxford-iiit-pet"
    names = ("Abyssinian_1", "beagle_2", "Abyssinian_3", "beagle_4", "Abyssinian_5")
    photographs(folder, *(f"images/{name}.jpg" for name in names))
    lines = [f"{n} {1 if n[0] == 'A' else 2} {1 if n[0] == 'A' else 2} 1\n" for n in names]
    write(folder / "annotations/trainval.txt", "".join(lines[:3]))
    write(folder / "annotations/test.txt", "".join(lines[3:]))
    return {"train": 3, "test": 2}


def make_dtd(root: Path) -> Sizes:
    names = ("banded/banded_1.jpg", "dotted/dotted_1.jpg", "dotted/dotted_2.jpg")
    photographs(root / "dtd/dtd/images", *names)
    for split, name in zip(("train", "val", "test"), names, strict=True):
        write(root / f"dtd/dtd/labels/{split}1.txt", f"{name}\n")
    return {"train": 2, "test": 1}


def make_food101(root: Path) -> Sizes:
    parts = {"train": {"apple_pie": ["apple_pie/1", "apple_pie/2"], "waffles": ["waffles/3"]},
             "test": {"apple_pie": ["apple_pie/4"], "waffles": ["waffles/5"]}}  # fmt: skip
    for name, classes in parts.items():
        (root / "food-101/meta").mkdir(parents=True, exist_ok=True)
        (root / f"food-101/meta/{name}.json").write_text(json.dumps(classes))
        files = [f"images/{image}.jpg" for images in classes.values() for image in images]
        photographs(root / "food-101", *files)
    return {"train": 3, "test": 2}


def make_eurosat(root: Path) -> Sizes:
    for name in ("Forest", "River"):
        photographs(root / "eurosat/2750", *(f"{name}/{name}_{i}.jpg" for i in range(5)))
    return {"train": 8, "test": 2}


def make_aircraft(root: Path) -> Sizes:
    data = root / "fgvc-aircraft-2013b/data"
    photographs(data / "images", "1.jpg", "2.jpg", "3.jpg")
    write(data / "variants.txt", "707-320\nF/A-18\n")
    write(data / "images_variant_trainval.txt", "2 F/A-18\n1 707-320\n")
    write(data / "images_variant_test.txt", "3 F/A-18\n")
    return {"train": 2, "test": 1}


MADE: dict[str, Callable[[Path], Sizes]] = {
    name: globals()[f"make_{name}"] for name in SETS
}  # all of them, or this fails


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the sets lie; torchvision's checksums of the official files are set aside."""
    monkeypatch.setenv("SSL_BENCH_DATA", str(tmp_path))
    for module in (cifar, flowers102, svhn):
        monkeypatch.setattr(module, "check_integrity", lambda path, _=None: os.path.isfile(path))
    return tmp_path


@pytest.fixture
def made(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Sizes]:
    def make(name: str) -> Sizes:
        sizes = MADE[name](home)
        monkeypatch.setitem(torchvision_sets.SETS, name, replace(SETS[name], sizes=sizes))
        return sizes

    return make


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_what_torchvision_reads(name: str, made: Callable[[str], Sizes]) -> None:
    """Pixels, labels and order of each split are those of torchvision's own parts of it."""
    sizes = made(name)
    dataset = catalogue.dataset(name)
    assert dataset.splits == tuple(sizes)
    for split, parts in SETS[name].parts.items():
        if name in ("eurosat", "stl10"):
            continue  # drawn by us; read by us, and compared below
        source = getattr(datasets, SETS[name].source)
        theirs = [source(dataset.root, **part) for part in parts]  # type: ignore[attr-defined]
        rows = [row for part in theirs for row in part]
        ours = dataset.split(split)
        assert len(ours.names) == len(rows) == sizes[split]
        assert ours.labels is not None
        assert ours.labels.tolist() == [label for _, label in rows]
        for index, (image, _) in enumerate(rows):
            np.testing.assert_array_equal(ours.whole(index)[0], np.asarray(image.convert("RGB")))


def test_stl10_is_what_torchvision_reads(
    home: Path, made: Callable[[str], Sizes], monkeypatch: pytest.MonkeyPatch
) -> None:
    made("stl10")
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda _: True)
    dataset = catalogue.dataset("stl10")
    for name in ("train", "test", "unlabeled"):
        theirs, ours = datasets.STL10(home, name), dataset.split(name)
        for index in range(len(theirs)):
            image, label = theirs[index]
            np.testing.assert_array_equal(ours.whole(index)[0], np.asarray(image))
            assert label == (-1 if ours.labels is None else ours.labels[index])
        assert ours.classes == ("airplane", "bird", "car")
    write(home / "stl10_binary/train_y.bin", np.array([1, 2, 9], np.uint8))
    assert_refused(lambda: dataset.split("train"), "do not go together", "bench data get stl10")
    (home / "stl10_binary/test_X.bin").unlink()
    assert_refused(lambda: dataset.split("test"), "test_X.bin is missing")


def test_pretraining_takes_stl10s_unlabelled_images(made: Callable[[str], Sizes]) -> None:
    made("stl10")
    dataset = catalogue.dataset("stl10")
    store = open_store(dataset, "train", 64, workers=0, labelled=False)
    assert (len(store), store.index.labels) == (5, None)
    assert "unlabelled" in store.index.notes[0]
    assert len(open_store(dataset, "train", 64, workers=0)) == 3


def test_eurosat_is_drawn_from_each_class(made: Callable[[str], Sizes]) -> None:
    made("eurosat")
    train, test = (catalogue.dataset("eurosat").split(name) for name in ("train", "test"))
    assert sorted(labels_of(test), key=str) == ["Forest", "River"]
    assert not {*train.names} & {*test.names}
    assert len({*train.names, *test.names}) == 10


def test_a_digest_is_of_the_content(made: Callable[[str], Sizes], home: Path) -> None:
    """Of files as of any folder's, of pixels in one file by size and pixels; workers read both."""
    made("pets")
    split = catalogue.dataset("pets").split("train")
    path = home / "oxford-iiit-pet/images/Abyssinian_1.jpg"
    assert split.whole(0)[1] == load_whole(path)[1]
    made("cifar10")
    dataset = catalogue.dataset("cifar10")
    first = open_store(dataset, "test", 32, workers=1)
    whole, digest = dataset.split("test").whole(1)
    assert first.index.digests[1] == digest
    assert digest != dataset.split("test").whole(2)[1]
    assert first.index.size == 36
    assert first.index.enlarged == 0
    assert whole.shape == (32, 32, 3)


def test_other_numbers_than_the_official_are_refused(home: Path) -> None:
    make_pets(home)
    assert_refused(
        lambda: catalogue.dataset("pets").split("train"), "3 images for train", "pets has 3,680"
    )


def test_what_is_not_there_and_what_is_damaged(home: Path, made: Callable[[str], Sizes]) -> None:
    for name in SETS:
        assert_refused(lambda name=name: catalogue.dataset(name), f"`bench data get {name}`")
    assert_refused(lambda: catalogue.dataset("dtd:1"), "takes nothing after its name")
    made("dtd")
    (home / "dtd/dtd/labels/val1.txt").unlink()
    parts = ("cannot be read as dtd", "val1.txt", "bench data get dtd")
    assert_refused(lambda: catalogue.dataset("dtd").split("train"), *parts)


def test_get_and_list(made: Callable[[str], Sizes], bench: Bench) -> None:
    made("food101")  # there already: torchvision fetches nothing
    made_out = bench.ok("data", "get", "food101").out
    assert "classification: train 3, test 2" in made_out
    fails(bench("data", "get", "food102"), 2, "did you mean food101")
    lines = bench.ok("data", "list").out.splitlines()
    assert any(line.split()[:1] == ["food101"] and "food-101" in line for line in lines)


# ---- fetched
def pack(path: Path, folder: Path, *names: str) -> str:
    """A gzipped archive of what lies in `folder`, and its MD5."""
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            archive.add(folder / name, name)
    return md5(path)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def serve_cifar10(server: Server, root: Path, served: Path, patch: pytest.MonkeyPatch) -> str:
    source = datasets.CIFAR10
    digest = pack(served / source.filename, root, source.base_folder)
    patch.setattr(source, "url", f"{server.base}/{source.filename}")
    patch.setattr(source, "tgz_md5", digest)
    for part in ("train_list", "test_list"):
        names = [name for name, _ in getattr(source, part)]
        patch.setattr(source, part, [[n, md5(root / source.base_folder / n)] for n in names])
    meta = md5(root / source.base_folder / source.meta["filename"])
    patch.setitem(source.meta, "md5", meta)
    return source.filename


def serve_svhn(server: Server, root: Path, served: Path, patch: pytest.MonkeyPatch) -> str:
    for split, (_, name, _) in datasets.SVHN.split_list.items():
        (root / "svhn" / name).rename(served / name)
        entry = [f"{server.base}/{name}", name, md5(served / name)]
        patch.setitem(datasets.SVHN.split_list, split, entry)
    return "test_32x32.mat"


def serve_pets(server: Server, root: Path, served: Path, patch: pytest.MonkeyPatch) -> str:
    found = []
    for name in ("images", "annotations"):
        file = f"{name}.tar.gz"
        digest = pack(served / file, root / "oxford-iiit-pet", name)
        found.append((f"{server.base}/{file}", digest))
    patch.setattr(datasets.OxfordIIITPet, "_RESOURCES", found)
    return "images.tar.gz"


def serve_aircraft(server: Server, root: Path, served: Path, patch: pytest.MonkeyPatch) -> str:
    file = "fgvc-aircraft-2013b.tar.gz"
    pack(served / file, root, "fgvc-aircraft-2013b")
    patch.setattr(datasets.FGVCAircraft, "_URL", f"{server.base}/{file}")
    return file


SERVED = {"cifar10": serve_cifar10, "svhn": serve_svhn, "pets": serve_pets,
          "aircraft": serve_aircraft}  # fmt: skip


@pytest.fixture(params=SERVED)
def fetched(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Path, str, Server]]:
    """A set's name, its empty home, the archive that is asked for last or at all, its server."""
    name, made, served, home = request.param, tmp_path / "made", tmp_path / "served", tmp_path / "h"
    for folder in (made, served, home):
        folder.mkdir()
    monkeypatch.setenv("SSL_BENCH_DATA", str(home))
    sizes = MADE[name](made)
    monkeypatch.setitem(torchvision_sets.SETS, name, replace(SETS[name], sizes=sizes))
    with serving(served) as server:
        yield name, home, SERVED[name](server, made, served, monkeypatch), server


def test_a_set_is_fetched_once(fetched: tuple[str, Path, str, Server], bench: Bench) -> None:
    name, _, file, server = fetched
    fails(bench("data", "check", name), 1, f"`bench data get {name}`")
    bench.ok("data", "get", name)
    assert f"/{file}" in server.asked
    bench.ok("data", "check", name, "--workers", 0)
    del server.asked[:]
    bench.ok("data", "get", name)
    assert not server.asked


def test_a_transfer_that_was_cut_is_made_again(
    fetched: tuple[str, Path, str, Server], bench: Bench
) -> None:
    """Also where torchvision has no checksum, and takes whatever archive lies there."""
    name, home, file, server = fetched
    server.cut.add(f"/{file}")
    fails(bench("data", "get", name), 1, "cannot be had", f"`bench data get {name}`")
    server.cut.clear()
    bench.ok("data", "get", name)
    bench.ok("data", "check", name, "--workers", 0)
    assert not [*home.rglob(".*unfinished")]


def test_a_set_that_was_half_unpacked_is_unpacked_again(
    fetched: tuple[str, Path, str, Server], bench: Bench
) -> None:
    """A kill leaves folders that torchvision takes for the set."""
    name, home, _, _ = fetched
    bench.ok("data", "get", name)
    root, folder = torchvision_sets.root_of(name), torchvision_sets.SETS[name].folder
    pictures = [*home.rglob("*.jpg")]
    for path in pictures[1:]:
        path.unlink()
    torchvision_sets.unfinished(name).touch()
    fails(bench("data", "check", name), 1, "not fetched to its end", f"`bench data get {name}`")
    bench.ok("data", "get", name)
    bench.ok("data", "check", name, "--workers", 0)
    assert sorted(home.rglob("*.jpg")) == sorted(pictures)
    assert (root / folder).is_dir()


@pytest.mark.parametrize("fetched", ["aircraft"], indirect=True)  # others have checksums
def test_what_was_there_before_stays(
    fetched: tuple[str, Path, str, Server], bench: Bench, tmp_path: Path
) -> None:
    """A set that torchvision cannot read, and an archive put there by hand that it cannot unpack.

    Somebody brought them: a fetch that fails removes what it has made itself.
    """
    name, home, file, server = fetched
    server.cut.add(f"/{file}")
    by_hand = home / file
    by_hand.write_bytes((tmp_path / "served" / file).read_bytes()[:100])
    fails(bench("data", "get", name), 1, "cannot be had")
    assert by_hand.stat().st_size == 100
    photographs(home / "fgvc-aircraft-2013b", "data/images/own.jpg")
    fails(bench("data", "get", name), 1, "cannot be had")
    assert (home / "fgvc-aircraft-2013b/data/images/own.jpg").is_file()


def test_from_a_set_to_a_number(
    made: Callable[[str], Sizes], bench: Bench, workspace: Path
) -> None:
    made("cifar10")
    common = (*TOY[:-2], "--data", "cifar10", "--workspace", workspace)
    bench.ok("pretrain", "random", *common)
    knn = ("knn", "--layer", "conv1", "--k", 3, "--data", "cifar10", "--workers", 0)
    assert "| random" in bench.ok(*knn, "--workspace", workspace).out
