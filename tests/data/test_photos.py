"""Real photographs in official layouts; skipped where SSL_BENCH_DATA does not point to them."""

import json
import re

import numpy as np
import pytest

from ssl_bench import catalogue
from ssl_bench.data.store.squares import open_store
from ssl_bench.data.voc.files import CLASSES
from ssl_bench.errors import UsageError
from ssl_bench.files import file_digest

pytestmark = pytest.mark.photos


def test_imagenette_is_read_whole(photos):
    data = catalogue.dataset(f"folder:{photos / 'imagenette-128'}")
    train, test = data.split("train"), open_store(data, "test", 8)  # as its digest is tested
    assert (len(train.names), len(test)) == (9469, 3925)
    assert len(train.classes) == 10
    assert train.classes[0] == "n01440764"  # tench
    assert set(test.labels) == set(range(10))
    assert all(0.2 < m < 0.7 for m in test.index.mean)


def test_a_class_without_test_images_keeps_the_others_labels(photos):
    """miniplaces-128/val has 99 of the 100 classes of train."""
    data = catalogue.dataset(f"folder:{photos / 'miniplaces-128'}")
    test = data.split("test")
    assert len(test.classes) == 100
    assert test.labels is not None
    assert len(set(test.labels)) == 99
    for name, label in zip(test.names, test.labels, strict=True):
        assert name.split("/")[0] == test.classes[label]


def test_a_flat_folder_trains_the_full_network_at_the_papers_size(photos, bench, tmp_path):
    bench.ok(
        "pretrain", "context-encoder", "--data", f"folder:{photos / 'paris-streetview-eval'}",
        "--steps", "1", "--batch-size", "4", "--preview", "--workspace", str(tmp_path),
    )  # fmt: skip
    (path,) = tmp_path.glob("pretrain/*/record.json")
    record = json.loads(path.read_text())
    assert record["details"]["images"] == 21
    assert record["details"]["encoder"]["spec"]["image_size"] == 227
    assert (path.parent / "preview.png").exists()


# ---- PASCAL VOC
# Images with an object that is not difficult, by class: VOC2007's published statistics of its test
# set, which is what the pack divides into trainval and test.
VOC07_TEST = [204, 239, 282, 172, 212, 174, 721, 322, 417, 127,
              190, 418, 274, 222, 2007, 224, 97, 223, 259, 229]  # fmt: skip
# The official chair_test.txt up to image 000400: those with a 1 and those with a 0.
CHAIRS = [3, 6, 8, 84, 90, 97, 116, 157, 185, 196, 217, 226, 234, 247, 314, 339, 366, 377, 385, 397]
DIFFICULT_CHAIRS = [59, 85, 111, 124, 126, 144, 181, 299, 327]


@pytest.fixture
def voc(photos):
    """A pack of PASCAL VOC by its year, and its two splits."""

    def opened(year, name):
        data = catalogue.dataset(f"voc:{photos / 'VOCdevkit' / f'VOC{year}'},name={name}")
        assert data.name == name
        return data, [data.split(split) for split in ("train", "test")]

    return opened


def counted(root, name):
    """int (N, 20) labels by regular expressions over the text, without a parser of XML."""
    labels = []
    for image in (root / "ImageSets" / "Main" / f"{name}.txt").read_text().split():
        text = (root / "Annotations" / f"{image}.xml").read_text()
        easy, hard = set(), set()
        for found in re.findall(r"<object>.*?</object>", text, re.DOTALL):
            kind = re.findall(r"<name>(\w+)</name>", found)[0]
            (hard if "<difficult>1<" in found else easy).add(kind)
        labels.append([1 if c in easy else -1 if c in hard else 0 for c in CLASSES])
    return np.array(labels)


def test_voc2007_is_read_whole(photos, voc):
    data, splits = voc(2007, "voc07-mini")
    for split, name in zip(splits, ("trainval", "test"), strict=True):
        assert split.labels.shape == (2476, 20)
        np.testing.assert_array_equal(split.labels, counted(data.root, name))
        positives = (split.labels == 1).sum(0)
        assert positives.min() > 0
        assert CLASSES[positives.argmax()] == "person"
    assert [(s.labels == 1).sum() for s in splits] == [3533, 3480]
    assert [(s.labels == -1).sum() for s in splits] == [311, 308]
    both = np.concatenate([s.labels for s in splits])
    assert (both == 1).sum(0).tolist() == VOC07_TEST


def test_voc2007_agrees_with_its_official_class_file(voc):
    _, splits = voc(2007, "voc07-mini")
    chair = CLASSES.index("chair")
    said = {n: k for s in splits for n, k in zip(s.names, s.labels[:, chair], strict=True)}
    early = {int(name): label for name, label in said.items() if name <= "000400"}
    assert sorted(n for n, label in early.items() if label == 1) == CHAIRS
    assert sorted(n for n, label in early.items() if label == -1) == DIFFICULT_CHAIRS


def test_voc2012_is_read_whole(photos, voc):
    data, splits = voc(2012, "voc12-animals")
    for split, name in zip(splits, ("train", "val"), strict=True):
        np.testing.assert_array_equal(split.labels, counted(data.root, name))
    assert [len(s.names) for s in splits] == [1697, 1729]
    assert [(s.labels == 1).sum() for s in splits] == [2260, 2273]
    assert [(s.labels == -1).sum() for s in splits] == [132, 121]
    absent = [{CLASSES[c] for c in np.flatnonzero(~(s.labels == 1).any(0))} for s in splits]
    assert absent == [{"aeroplane", "bus", "train"}, {"aeroplane"}]
    assert [CLASSES[(s.labels == 1).sum(0).argmax()] for s in splits] == ["dog", "dog"]


def test_no_image_is_in_both_years_or_both_splits(voc):
    digests = []
    for year, name in ((2007, "voc07-mini"), (2012, "voc12-animals")):
        data, _ = voc(year, name)
        for split in ("train", "test"):
            names = data.split(split).names
            digests += [file_digest(data.root / "JPEGImages" / f"{name}.jpg") for name in names]
    assert len(digests) == len(set(digests)) == 2 * 2476 + 1697 + 1729


@pytest.mark.parametrize(("year", "name"), [(2007, "voc07"), (2012, "voc12")])
def test_packs_are_not_the_official_splits(photos, year, name):
    with pytest.raises(UsageError, match="kept for the official"):
        catalogue.dataset(f"voc:{photos / 'VOCdevkit' / f'VOC{year}'},name={name}")
