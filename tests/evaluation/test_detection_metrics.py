"""Average precision of detections: by hand, against pycocotools and scikit-learn, and at the edges.

Where VOC's kit and COCO's differ (a second object that a detection overlaps enough, several
detections of one difficult object) the oracle is a plain count written from the kit's description.
"""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import precision_recall_curve

from ssl_bench.errors import DataError
from ssl_bench.evaluation.metrics.detection import (
    box_overlaps,
    classes_to_find,
    coco_precision,
    detection_curve,
    detection_precision,
    detection_precisions,
    judge_detections,
    resampled_detection,
)
from ssl_bench.evaluation.metrics.resampling import bootstrap_intervals

HERE = (0, 0, 10, 10)
THERE = (100, 0, 110, 10)
ELSEWHERE = (0, 100, 10, 110)


def padded(rows, length=None):
    """Lists of rows (6,) -> float32 (N, length, 6), class −1 in the empty places."""
    array = np.zeros((len(rows), length or max(1, *map(len, rows)), 6), np.float32)
    array[..., 0] = -1
    for place, each in zip(array, rows, strict=True):
        for i, row in enumerate(each):
            place[i] = row
    return array


def found(label, score, box):
    return (label, score, *box)


def thing(label, box, difficult=0):
    return (label, difficult, *box)


def precision(detections, objects, label=0):
    """11 points and area of one class, of rows an image."""
    judged = judge_detections(padded(detections), padded(objects), label)
    once = np.ones((len(objects), 1), np.int32)
    return detection_precisions(judged, once)[:, 0].tolist()


def intervals(detections, objects):
    return bootstrap_intervals(resampled_detection(detections, objects))


# ---- by hand
def test_overlaps():
    a, b = np.array([HERE]), np.array([HERE, (5, 0, 15, 10), (10, 0, 20, 10), (2, 2, 4, 4)])
    assert box_overlaps(a, b)[0].tolist() == pytest.approx([1, 1 / 3, 0, 0.04])


def test_a_found_object_is_all_there_is():
    assert precision([[found(0, 0.3, HERE)]], [[thing(0, HERE)]]) == [100, 100]


def test_a_ranking_by_hand():
    """Right, wrong, right, wrong with three objects: precision 1 at a third, 2/3 at two thirds."""
    objects = [[thing(0, HERE), thing(0, THERE)], [thing(0, HERE)]]
    detections = [
        [found(0, 0.9, HERE), found(0, 0.8, ELSEWHERE), found(0, 0.7, THERE)],
        [found(0, 0.1, THERE)],
    ]
    eleven, area = precision(detections, objects)
    assert eleven == pytest.approx(100 * (4 * 1 + 3 * 2 / 3) / 11)  # 0 … 0.3, 0.4 … 0.6, nothing
    assert area == pytest.approx(100 * (1 / 3 + 2 / 3 / 3))
    judged = judge_detections(padded(detections), padded(objects), 0)
    recall, at = detection_curve(judged)
    assert recall == pytest.approx([1 / 3, 2 / 3])
    assert at == pytest.approx([1, 2 / 3])


def test_an_object_is_found_once():
    objects = [[thing(0, HERE)], [thing(0, HERE)]]
    detections = [[found(0, 0.9, HERE), found(0, 0.8, HERE)], [found(0, 0.7, HERE)]]
    _, area = precision(detections, objects)
    assert area == pytest.approx(100 * (1 / 2 + 2 / 3 / 2))


def test_the_better_score_finds_it_not_the_better_box():
    judged = judge_detections(
        padded([[found(0, 0.2, HERE), found(0, 0.9, (0, 0, 10, 8))]]),
        padded([[thing(0, HERE)]]),
        0,
    )
    assert judged.score.tolist() == pytest.approx([0.9, 0.2])
    assert judged.hit.tolist() == [True, False]


def test_a_detection_belongs_to_the_object_it_overlaps_most():
    """It is wrong where that is found already, though another would do: the kit's rule."""
    near = (0, 0, 10, 12)
    objects = padded([[thing(0, HERE), thing(0, near)]])
    judged = judge_detections(padded([[found(0, 0.9, HERE), found(0, 0.8, HERE)]]), objects, 0)
    assert box_overlaps(np.array([HERE]), np.array([near]))[0, 0] > 0.5
    assert judged.hit.tolist() == [True, False]


def test_half_is_enough_and_less_is_not():
    objects = [[thing(0, (0, 0, 10, 20))]]
    assert precision([[found(0, 0.9, HERE)]], objects) == [100, 100]
    assert precision([[found(0, 0.9, (0, 0, 10, 9.99))]], objects) == [0, 0]


def test_difficult_objects_are_neither_found_nor_missed():
    objects = [[thing(0, HERE), thing(0, THERE, difficult=1)]]
    detections = [[found(0, 0.9, THERE), found(0, 0.8, THERE), found(0, 0.7, HERE)]]
    assert precision(detections, objects) == [100, 100]
    assert precision([[found(0, 0.7, HERE)]], objects) == [100, 100]
    assert precision([[found(0, 0.9, ELSEWHERE), found(0, 0.7, HERE)]], objects)[1] == 50


def test_classes_that_are_not_there_or_difficult_only_do_not_count():
    objects = padded([[thing(0, HERE), thing(2, THERE, difficult=1)], [thing(5, HERE)]])
    detections = padded([[found(0, 0.9, HERE), found(1, 0.9, HERE), found(2, 0.9, HERE)], []])
    assert classes_to_find(objects) == [0, 5]
    metrics = detection_precision(detections, objects)
    assert {name for name in metrics if name.startswith("ap")} == {
        "ap11_0", "ap_0", "ap11_5", "ap_5",
    }  # fmt: skip
    assert metrics["ap11_0"] == metrics["ap_0"] == 100
    assert metrics["ap11_5"] == metrics["ap_5"] == 0
    assert metrics["map11"] == metrics["map"] == 50


def test_no_detections_are_zero():
    objects = padded([[thing(0, HERE)], [thing(1, HERE)]])
    metrics = detection_precision(padded([[], []], 100), objects)
    assert metrics["map11"] == metrics["map"] == 0
    assert intervals(padded([[], []], 100), objects)["map11"][1] == 0
    assert coco_precision(padded([[], []], 100), objects) == 0


def test_nothing_to_find_is_an_error():
    for objects in ([[]], [[thing(0, HERE, difficult=1)]]):
        with pytest.raises(DataError, match="no object to find"):
            detection_precision(padded([[found(0, 0.9, HERE)]]), padded(objects))


# ---- random inputs
def world(seed, images=30, classes=4, apart=True, digits=None):
    """Random objects and detections near them; `apart`: no two objects of an image overlap."""
    random = np.random.default_rng(seed)
    objects, detections = [], []
    for _ in range(images):
        count = int(random.integers(0, 5))
        cells = random.permutation(9)[:count] if apart else random.integers(0, 2, count)
        corners = np.stack([cells % 3, cells // 3], 1) * 100 + random.uniform(0, 20, (count, 2))
        boxes = np.concatenate([corners, corners + random.uniform(30, 60, (count, 2))], 1)
        labels = random.integers(0, classes, count)
        difficult = random.random(count) < 0.25
        objects.append([thing(*x) for x in zip(labels, boxes, difficult, strict=True)])
        near = []
        for label, box, hard in zip(labels, boxes, difficult, strict=True):
            for _ in range(int(random.integers(0, 2 if hard and apart else 4))):
                moved = box + random.normal(0, 5, 4)
                other = label if random.random() < 0.8 else random.integers(0, classes)
                near.append(found(other, random.random(), moved))
        for _ in range(int(random.integers(0, 3))):
            corner = random.uniform(0, 300, 2)
            box = np.concatenate([corner, corner + 30])
            near.append(found(random.integers(0, classes), random.random(), box))
        order = sorted(near, key=lambda row: -row[1])
        detections.append([(r[0], round(r[1], digits), *r[2:]) if digits else r for r in order])
    return padded(detections, 100), padded(objects)


def by_coco(detections, objects, recalls):
    """Precision at these recalls by pycocotools, (classes, recalls) by class.

    Difficult objects get an area that is out of range, so that they are ignored.
    """
    truth, rows = [], []
    for image, row in [(i, r) for i, each in enumerate(objects) for r in each if r[0] >= 0]:
        x0, y0, x1, y1 = row[2:].tolist()
        area = 1e12 if row[1] else 1.0
        truth.append({"image_id": image, "category_id": int(row[0]), "iscrowd": 0, "area": area,
                      "bbox": [x0, y0, x1 - x0, y1 - y0]})  # fmt: skip
    for image, row in [(i, r) for i, each in enumerate(detections) for r in each if r[0] >= 0]:
        x0, y0, x1, y1 = row[2:].tolist()
        rows.append({"image_id": image, "category_id": int(row[0]), "score": float(row[1]),
                     "area": 1.0, "bbox": [x0, y0, x1 - x0, y1 - y0]})  # fmt: skip
    labels = classes_to_find(objects)
    known: Any = COCO()
    answers: Any = COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        for index, items in ((known, truth), (answers, rows)):
            index.dataset = {
                "images": [{"id": i} for i in range(len(objects))],
                "categories": [{"id": label} for label in labels],
                "annotations": [{**item, "id": 1 + i} for i, item in enumerate(items)],
            }
            index.createIndex()
        judge = COCOeval(known, answers, "bbox")
        judge.params.iouThrs = np.array([0.5])
        judge.params.recThrs = recalls
        judge.evaluate()
        judge.accumulate()
    return dict(zip(labels, judge.eval["precision"][0, :, :, 0, -1].T, strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_pycocotools_agrees_where_the_rules_do(seed):
    detections, objects = world(seed)
    metrics = detection_precision(detections, objects)
    fine = (np.arange(20_000) + 0.5) / 20_000
    tenths = np.arange(11) / 10 - 1e-9  # a recall of 3/10 is one of 0.3
    areas, elevens = (by_coco(detections, objects, recalls) for recalls in (fine, tenths))
    for label in classes_to_find(objects):
        assert metrics[f"ap_{label}"] == pytest.approx(100 * areas[label].mean(), abs=0.01)
        assert metrics[f"ap11_{label}"] == pytest.approx(100 * elevens[label].mean(), abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_scikit_learn_agrees_on_ties(seed):
    """Its curve takes equal scores together, too; only the objects never found are ours to add."""
    detections, objects = world(seed, digits=1)
    for label in classes_to_find(objects):
        judged = judge_detections(detections, objects, label)
        assert len(np.unique(judged.score)) < len(judged.score)
        eleven, area = detection_precisions(judged, np.ones((len(objects), 1), np.int32))[:, 0]
        at, recall, _ = precision_recall_curve(judged.hit, judged.score)
        at, recall = at[:-1], recall * judged.hit.sum() / judged.total.sum()  # the last is no score
        best = [max(at[recall[:-1] >= r - 1e-9], default=0) for r in np.arange(11) / 10]
        assert eleven == pytest.approx(100 * np.mean(best))
        highest = np.maximum.accumulate(at)  # recall falls along the arrays
        assert area == pytest.approx(100 * np.sum(-np.diff(recall) * highest))


def by_the_kit(detections, objects, label):
    """VOCevaldet, counted plainly, detection by detection."""
    rows = [(i, r) for i, each in enumerate(detections) for r in each if r[0] == label]
    rows.sort(key=lambda row: -row[1][1])
    taken, flags, scores = set(), [], []
    for image, row in rows:
        best, place = 0.0, None
        for j, other in enumerate(objects[image]):
            if other[0] != label:
                continue
            wide = min(row[4], other[4]) - max(row[2], other[2])
            high = min(row[5], other[5]) - max(row[3], other[3])
            if wide > 0 and high > 0:
                union = (row[4] - row[2]) * (row[5] - row[3])
                union += (other[4] - other[2]) * (other[5] - other[3]) - wide * high
                if wide * high / union > best:
                    best, place = wide * high / union, j
        if place is not None and best >= 0.5:
            if objects[image][place][1]:
                continue
            flags.append((image, place) not in taken)
            taken.add((image, place))
        else:
            flags.append(False)
        scores.append(row[1])
    return flags, scores


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("digits", [None, 1])
def test_crowded_worlds_are_judged_as_by_the_kit(seed, digits):
    detections, objects = world(seed, apart=False, digits=digits)
    for label in range(4):
        judged = judge_detections(detections, objects, label)
        flags, scores = by_the_kit(detections.astype(float), objects.astype(float), label)
        assert judged.score.tolist() == pytest.approx(scores)
        assert judged.hit.tolist() == flags


# ---- properties
def test_the_order_of_images_makes_no_difference_even_with_ties():
    detections, objects = world(0, digits=1)
    order = np.random.default_rng(0).permutation(len(objects))
    first = detection_precision(detections, objects)
    second = detection_precision(detections[order], objects[order])
    for name in first:
        if not name.endswith(("low", "high")):
            assert first[name] == pytest.approx(second[name])


def test_an_image_that_counts_twice_is_an_image_twice():
    detections, objects = world(1)
    counts = np.random.default_rng(0).integers(0, 3, (len(objects), 1)).astype(np.int32)
    again = np.repeat(np.arange(len(objects)), counts[:, 0])
    for label in classes_to_find(objects):
        counted = detection_precisions(judge_detections(detections, objects, label), counts)
        copied = judge_detections(detections[again], objects[again], label)
        once = detection_precisions(copied, np.ones((len(again), 1), np.int32))
        assert counted[:, 0] == pytest.approx(once[:, 0])


def test_the_interval_is_fixed_and_holds_the_value():
    detections, objects = world(2)
    metrics, around = detection_precision(detections, objects), intervals(detections, objects)
    assert around == intervals(detections, objects)
    for name in ("map11", "map"):
        assert around[name][0] < metrics[name] < around[name][1]


def test_weaker_detections_never_lower_the_precision():
    """Why there is no threshold on scores."""
    detections, objects = world(3)
    cut = detections.copy()
    cut[cut[..., 1] < 0.5] = -1
    fewer, all_of_them = (detection_precision(d, objects) for d in (cut, detections))
    assert all(all_of_them[name] >= fewer[name] for name in fewer if "_" not in name)


# ---- COCO's
def test_coco_counts_ten_overlaps():
    """Overlap 0.72 is enough for 0.5 to 0.7: five of ten."""
    objects = padded([[thing(0, (0, 0, 100, 100))], [thing(0, (0, 0, 100, 100))]])
    detections = padded([[found(0, 0.9, (0, 0, 100, 72))], [found(0, 0.8, (0, 0, 100, 100))]])
    assert coco_precision(padded([[found(0, 0.5, r[2:])] for r in objects[:, 0]]), objects) == 100
    alone = coco_precision(detections[:1], objects[:1])
    assert alone == pytest.approx(50)


def test_coco_leaves_difficult_objects_out_and_says_nothing(capsys):
    objects = padded([[thing(3, HERE), thing(3, THERE, difficult=1)]])
    detections = padded([[found(3, 0.9, THERE), found(3, 0.8, HERE)]])
    assert coco_precision(detections, objects) == pytest.approx(100)
    assert capsys.readouterr().out == ""


def test_torchmetrics_agrees_on_coco():
    torch = pytest.importorskip("torch")
    detection = pytest.importorskip("torchmetrics.detection")
    detections, objects = world(5)
    judge = detection.MeanAveragePrecision(
        backend="pycocotools",  # its own thresholds are in single precision
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
    )
    for rows, truth in zip(detections, objects, strict=True):
        rows, truth = (torch.from_numpy(x[x[:, 0] >= 0]) for x in (rows, truth))
        known = {"boxes": truth[:, 2:], "labels": truth[:, 0].long(), "iscrowd": truth[:, 1].int()}
        answer = {"boxes": rows[:, 2:], "labels": rows[:, 0].long(), "scores": rows[:, 1]}
        judge.update([answer], [known])
    assert coco_precision(detections, objects) == pytest.approx(100 * float(judge.compute()["map"]))
