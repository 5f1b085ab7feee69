"""Real photographs in official layouts; skipped where SSL_BENCH_DATA does not point to them."""

import json

import pytest

from ssl_bench import catalogue
from ssl_bench.data.store import open_store

pytestmark = pytest.mark.photos


def test_imagenette_is_read_whole(photos):
    data = catalogue.dataset(f"folder:{photos / 'imagenette-128'}")
    train, test = (open_store(data, split, 64) for split in ("train", "test"))
    assert (len(train), len(test)) == (9469, 3925)
    assert len(train.index.classes) == 10
    assert train.index.classes[0] == "n01440764"  # tench
    assert set(test.labels) == set(range(10))
    assert all(0.2 < m < 0.7 for m in train.index.mean)


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
    made = bench(
        "pretrain", "context-encoder", "--data", f"folder:{photos / 'paris-streetview-eval'}",
        "--steps", "1", "--batch-size", "4", "--preview", "--workspace", str(tmp_path),
    )  # fmt: skip
    assert made.code == 0, made.err
    (path,) = tmp_path.glob("pretrain/*/record.json")
    record = json.loads(path.read_text())
    assert record["details"]["images"] == 21
    assert record["details"]["encoder"]["spec"]["image_size"] == 227
    assert (path.parent / "preview.png").exists()
