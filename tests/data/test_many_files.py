"""Sets of very many files: what listing costs, and that its shortcuts change nothing."""

import hashlib
import json
import os
import time
import tracemalloc
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.photos import draw_photo
from ssl_bench import catalogue
from ssl_bench.data.dataset import Split
from ssl_bench.data.paths import stamp
from ssl_bench.data.store.packing import content_digest
from ssl_bench.data.string_array import StringArray
from ssl_bench.data.survey import check
from ssl_bench.data.tree import SUFFIXES, LeftOut, is_hidden, names_below

ODD = ["a", "", "ünï", "caf\udce9", "日本", "\ud800", "x" * 300, "new\nline", '"quoted"\\']


# ---- strings
def test_an_array_of_strings_is_a_sequence_of_them() -> None:
    strings = ODD * 300  # several blocks
    found = StringArray.of(iter(strings))
    assert list(found) == strings == [found[i] for i in range(len(strings))]
    assert (found[-1], found[-len(strings)], len(found)) == (strings[-1], strings[0], 2700)
    for part in (slice(3), slice(-5, None), slice(None, None, -2), slice(0, 0)):
        assert found[part] == strings[part]
    assert found.at([8, 0, 3]) == [strings[i] for i in (8, 0, 3)]
    assert found != strings[1:]
    with pytest.raises(IndexError):
        _ = found[len(strings)]


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 2001])
def test_content_digests_are_those_of_json(count: int) -> None:
    names = (ODD * 300)[:count]
    labels, several = np.arange(count) % 7, np.ones((count, 3), np.int8)
    plain = [("a", "b"), names, labels.tolist(), several.tolist(), None]
    expected = hashlib.sha256(json.dumps(plain).encode()).hexdigest()
    assert content_digest(("a", "b"), StringArray.of(names), labels, several, None) == expected


# ---- listing, against pathlib
def below(root: Path) -> list[Path]:
    """Files below a folder, each folder once, links to folders last."""
    files, seen = list[Path](), {*root.resolve().parents}
    waiting, links = deque([root]), deque[Path]()
    while waiting or links:
        folder = waiting.popleft() if waiting else links.popleft()
        if folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        for path in sorted(folder.iterdir()):
            if is_hidden(path.name):
                continue
            if path.is_dir():
                (links if path.is_symlink() else waiting).append(path)
            elif path.suffix.lower() in SUFFIXES:
                files.append(path)
    return sorted(files)


def fingerprint(root: Path, files: Sequence[Path], labels: Sequence[int], classes: Sequence[str]):
    """By pathlib, as the keys of stores have had it from the first."""
    digest = hashlib.sha256(repr((str(root), tuple(classes))).encode())
    for file, label in zip(files, labels, strict=True):
        text = repr((file.relative_to(root).as_posix(), stamp(file), label))
        digest.update(text.encode(errors="backslashreplace"))
    return digest.hexdigest()


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Classes with nested folders, links, hidden and other files, and names that sort apart."""
    root = tmp_path / "odd/train"
    names = ("a/0.png", "a/0/1.png", "a/0-1/2.PNG", "a/0.d/3.jpeg", "a/.hidden.png", "a/..png",
             "a/@eaDir/4.png", "a/x.", "a/.png", "a/x.txt", "a/ünï.jpg", "b/Z.gif", "b/a.gif",
             "b/10.png", "b/9.png", "b/deep/er/e.png", "b/deep.png", "b/caf\udce9.png",
             "b/e.png.", "loose.png")  # fmt: skip
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode(errors="replace"))
    for name, target in [("b/one", root / "a"), ("b/back", root), ("a/broken.png", root / "no"),
                         ("a/broken", root / "no"), ("b/link.png", root / "a/0.png"),
                         ("b/0-first", root / "b/deep"), ("b/self", root / "b/self")]:  # fmt: skip
        (root / name).symlink_to(target)
    return root


def test_odd_folders_are_listed_as_by_pathlib(odd: Path) -> None:
    for root in (odd, odd / "a", odd / "b"):
        expected = [file.relative_to(root).as_posix() for file in below(root)]
        assert names_below(root, LeftOut()) == expected
        assert len(expected) > 5
    split = catalogue.dataset(f"folder:{odd.parent}").split("train")
    each = [sorted(below(odd / name), key=lambda f: (str(f.parent), f.name)) for name in "ab"]
    files, labels = [*each[0], *each[1]], [0] * len(each[0]) + [1] * len(each[1])
    assert split.names == [file.relative_to(odd).as_posix() for file in files]
    assert split.labels is not None
    assert split.labels.tolist() == labels
    assert split.fingerprint == fingerprint(odd, files, labels, "ab")
    for kind in ("hidden file", "hidden folder", ".txt file", "broken link", "image outside"):
        assert kind in split.notes[0]


# ---- what a file costs
@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Sets of so many names, which are links to one image."""
    root, made = tmp_path_factory.mktemp("many"), dict[int, Path]()
    draw_photo(0, 8, 8).save(root / "one.png")
    for count in (5_000, 20_000):
        made[count] = root / str(count)
        for label in range(50):
            (made[count] / f"train/class-{label}").mkdir(parents=True)
        for i in range(count):
            os.link(root / "one.png", made[count] / f"train/class-{i % 50}/image-{i:06}.png")
    return made


def listed(root: Path) -> Split:
    return catalogue.dataset(f"folder:{root}").split("train")


def test_time_and_memory_of_a_listed_file_do_not_grow(many: dict[int, Path]) -> None:
    times = {count: list[float]() for count in many}
    for _ in range(5):
        for count, root in many.items():
            started = time.process_time()
            listed(root)
            times[count].append((time.process_time() - started) / count)
    assert min(times[20_000]) < 1.5 * min(times[5_000])
    tracemalloc.start()
    split = listed(many[20_000])
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(split.names) == 20_000
    assert held / 20_000 < 60  # 27 bytes of a name, 8 of its end, 8 of a label
    assert peak / 20_000 < 120


def test_checking_keeps_no_image(many: dict[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    split_type = type(listed(many[5_000]))
    pixels = np.asarray(Image.new("RGB", (8, 8)))
    monkeypatch.setattr(split_type, "whole", lambda self, index: (pixels, "digest"))
    dataset = catalogue.dataset(f"folder:{many[5_000]}")
    list(check(dataset, None, 0))
    tracemalloc.start()
    lines = list(check(dataset, None, 0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert lines[0].startswith("train, classification: 5,000 images, 5,000 grey")
    assert peak / 5_000 < 200
