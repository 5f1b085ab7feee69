"""Resamples drawn by hand, and which test belongs to which numbers."""

import numpy as np
import pytest

from helpers.predictions import fills, stored
from ssl_bench import catalogue
from ssl_bench.evaluation.metrics.resampling import RESAMPLES, resample_counts
from ssl_bench.records.protocols import harness_of
from ssl_bench.tables.measured import Measured, paired_difference


def boxes(random, count, kinds):
    """float32 (N, `count`, 6): class, score or difficult, box; every fourth place is empty."""
    corner = random.uniform(0, 40, (30, count, 2))
    size = random.uniform(5, 30, (30, count, 2))
    label = random.integers(0, kinds, (30, count, 1)).astype(float)
    label[random.random(label.shape) < 0.25] = -1
    rank = np.round(random.random((30, count, 1)), 2)
    return np.concatenate([label, rank, corner, corner + size], 2).astype(np.float32)


def example(protocol):
    """Predictions for 30 test images as the protocol's harness stores them."""
    random = np.random.default_rng(0)
    label = random.integers(0, 3, 30)
    predicted = np.where(random.random(30) < 0.6, label, random.integers(0, 3, 30))
    targets = random.integers(-1, 2, (30, 3)).astype(np.int8)
    scores = np.round(random.normal(targets, 1), 1).astype(np.float32)
    truth = boxes(random, 3, 2)
    truth[..., 1] = random.random((30, 3)) < 0.2  # difficult
    found = np.concatenate([truth, boxes(random, 4, 2)], 1)  # each object, and as much besides
    found[:, :3, 1] = np.round(random.random((30, 3)), 2)
    return {
        "linear/logreg@1": {"label": label, "predicted": predicted},
        "knn/vissl@1": {
            "label": label, "predicted": predicted, "predicted_by_k": predicted[:, None],
        },
        "svm/goyal19-voc07@1": {"targets": targets, "scores": scores},
        "finetune/krahenbuhl16@1": {"targets": targets, "scores": scores},
        "segmentation/fcn32s@1": {"confusion": random.integers(0, 99, (30, 3, 3), np.int32)},
        "detection/fast-rcnn@1": {"detections": found, "objects": truth},
        "inpainting/pathak16@1": {
            name: random.normal(20, 3, 30).astype(np.float32)
            for name in ("l1", "l2", "psnr", "ssim")
        },
    }[protocol]  # fmt: skip


BY_PROTOCOL = {
    "linear/logreg@1": ["top1"],
    "knn/vissl@1": ["top1"],
    "svm/goyal19-voc07@1": ["map11"],
    "finetune/krahenbuhl16@1": ["map_uninterpolated", "map11"],
    "segmentation/fcn32s@1": ["mean_iu"],
    "detection/fast-rcnn@1": ["map11", "map"],
    "inpainting/pathak16@1": ["l1", "l2", "psnr", "ssim"],
}
PLACES = [(protocol, metric) for protocol, metrics in BY_PROTOCOL.items() for metric in metrics]


def drawn_by_hand(found, harness, predictions, metric):
    """Each resample is the score of the images that it draws, some of them several times."""
    assert len(found) == 1 + RESAMPLES
    assert found[0] == pytest.approx(harness.score(predictions)[metric])
    images = len(next(iter(predictions.values())))
    for place in (1, 2, 3, RESAMPLES):
        which = np.repeat(np.arange(images), resample_counts(images)[:, place])
        drawn = {name: rows[which] for name, rows in predictions.items()}
        assert found[place] == pytest.approx(harness.score(drawn)[metric]), place


@pytest.mark.parametrize(("protocol", "metric"), PLACES)
def test_a_resample_is_the_metric_of_the_images_drawn(tmp_path, protocol, metric):
    predictions = example(protocol)
    record = stored(tmp_path, "random", predictions, protocol=protocol)
    found = Measured(record, metric, tmp_path).resampled
    assert found is not None
    drawn_by_hand(found, harness_of(record), predictions, metric)
    # The value alone and the first of many are sums in another order.
    assert found[0] == pytest.approx(Measured(record, metric, tmp_path).value, rel=1e-12)
    assert np.ptp(found) > 0


def test_images_of_one_label_are_resampled_after_fine_tuning_too(tmp_path):
    """`finetune/krahenbuhl16` measures top-1 then."""
    predictions, protocol = example("linear/logreg@1"), "finetune/krahenbuhl16@1"
    record = stored(tmp_path, "random", predictions, protocol=protocol)
    found = Measured(record, "top1", tmp_path).resampled
    assert found is not None
    drawn_by_hand(found, harness_of(record), predictions, "top1")


def test_every_protocol_is_resampled_but_the_one_with_draws_of_its_own():
    all_of_them = {catalogue.evaluation(name) for name in catalogue.names("eval")}
    by_base = {"linear/logreg@1": {"linear/zhang16@1", "finetune/linear-head@1"},
               "knn/vissl@1": {"knn/dinov2@1", "knn/lightly@1"}}  # fmt: skip
    known = {*BY_PROTOCOL, *(p for protocols in by_base.values() for p in protocols)}
    assert {harness.protocol for harness in all_of_them} - known == {"low-shot/goyal19@1"}
    for base, protocols in by_base.items():
        for harness in (h for h in all_of_them if h.protocol in protocols):
            assert list(harness(harness.Config()).resampled(example(base))) == ["top1"]


def test_two_methods_have_the_same_resamples(tmp_path):
    """One image alone has an error: its resamples are how often that image was drawn."""
    one, other = np.zeros((2, 30))
    one[3] = other[3] = 30
    rest = fills(10, 15)
    found = [
        Measured(
            stored(tmp_path, name, {**rest, "l1": l1}, protocol="inpainting/pathak16@1"),
            "l1", tmp_path,
        ).resampled
        for name, l1 in (("a", one), ("b", other + np.eye(30)[5] * 60))
    ]  # fmt: skip
    assert found[0] is not None
    assert found[1] is not None
    counts = resample_counts(30)
    assert found[0] == pytest.approx(counts[3])
    assert found[1] - found[0] == pytest.approx(2 * counts[5])


# ---- which test belongs to which numbers


@pytest.mark.parametrize(
    ("protocol", "metric", "test"),
    [
        ("knn/vissl@1", "top1", "McNemar"),
        ("inpainting/pathak16@1", "psnr", "paired t"),
        ("svm/goyal19-voc07@1", "map11", "paired bootstrap"),
        ("segmentation/fcn32s@1", "mean_iu", "paired bootstrap"),
    ],
)
def test_each_metric_has_its_test(tmp_path, protocol, metric, test):
    """Of the same predictions nothing is left: p is 1."""
    pair = [
        Measured(stored(tmp_path, name, example(protocol), protocol=protocol), metric, tmp_path)
        for name in ("a", "b")
    ]
    found = paired_difference(pair[:1], pair[1:])
    assert found is not None
    assert (found.test, found.mean, found.half if test != "McNemar" else 0, found.p) == (
        test, 0, 0, 1,
    )  # fmt: skip
