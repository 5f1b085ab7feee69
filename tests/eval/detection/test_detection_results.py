"""Detection: what comes out, and requests that cannot be met."""

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval.detection import FastRCNN, padded, proposal_recall, truth_of
from eval.networks.proposals import Proposals, Searched, open_proposals
from helpers.detection import DETECT, QUICK, detected, network_of, subject
from helpers.refusals import SCENES, TOY, fails, only
from ssl_bench.errors import DataError, UsageError
from ssl_bench.evaluation.harness import score_with_intervals


# ---- what comes out
def test_predictions_are_a_row_per_image_best_first(stores, tmp_path):
    outcome = detected(QUICK, subject(stores[0]), stores, tmp_path / "a")
    found, truth = outcome.predictions["detections"], outcome.predictions["objects"]
    assert found.shape == (5, 100, 6)
    assert found.dtype == truth.dtype == np.float32
    assert np.array_equal(truth, truth_of(stores[1]))
    for rows, (h, w) in zip(found, stores[1].sizes, strict=True):
        rows = rows[rows[:, 0] >= 0]
        assert len(rows) > 0
        assert (np.diff(rows[:, 1]) <= 0).all()
        assert (rows[:, 2:] >= 0).all()
        assert (rows[:, 2:] <= [w, h, w, h]).all()
    metrics = score_with_intervals(FastRCNN(QUICK), outcome.predictions)
    assert {"map11", "map11_low", "map11_high", "map", "coco_map"} <= metrics.keys()
    named = outcome.selection["ap11"]
    assert sum(named.values()) / len(named) == pytest.approx(metrics["map11"], abs=0.01)
    assert 0 < outcome.selection["proposals"]["recall"] <= 100
    for name in ("detections.png", "precision-recall.png"):
        with Image.open(tmp_path / "a" / name) as picture:
            assert min(picture.size) > 200


def test_truth_and_its_recall():
    assert padded([np.ones((2, 6)), np.zeros((0, 6))], 3)[..., 0].tolist() == [[1, 1, -1], [-1] * 3]
    boxes = np.array([[0, 0, 10, 10], [0, 0, 5, 5]], np.float32)
    truth = np.full((2, 2, 6), -1, np.float32)
    truth[0] = [(1, 0, 0, 0, 10, 9), (1, 0, 50, 50, 60, 60)]
    truth[1, 0] = (1, 1, 70, 70, 80, 80)  # difficult
    assert proposal_recall(Proposals(boxes, np.array([1, 2])), truth) == 50


def test_other_images_are_no_part_of_a_detection(stores):
    tested, test = subject(stores[0]), stores[1]
    network, harness = network_of(tested, stores[0]), FastRCNN(QUICK)
    boxes = open_proposals(test, "test")
    every = harness.rows(network, Searched(test, boxes), tested.spec)
    shown = [3, 1]
    part: Any = _Part(test, shown)
    offsets = np.cumsum([len(boxes[i]) for i in shown])
    some = Proposals(np.concatenate([boxes[i] for i in shown]), offsets)
    assert np.array_equal(harness.rows(network, Searched(part, some), tested.spec), every[shown])


class _Part:
    """Some images of a store."""

    def __init__(self, store, which):
        self.store, self.which = store, np.array(which)
        self.sizes = store.sizes[self.which]

    def __len__(self):
        return len(self.which)

    def images(self, which):
        return self.store.images(self.which[which])


# ---- requests
def test_nothing_to_learn_or_to_find_is_refused_before_anything_is_computed(stores):
    train, test = stores

    class Without:
        def __init__(self, store, difficult):
            self.store, self.difficult = store, difficult

        def __len__(self):
            return len(self.store)

        def objects(self, i):
            found = self.store.objects(i)
            keep = slice(None) if self.difficult else slice(0)
            hard = np.ones(len(found.labels[keep]), bool)
            return type(found)(found.boxes[keep], found.labels[keep], hard)

    harness: Any = FastRCNN(QUICK)
    harness.check({"train": train, "test": test})
    with pytest.raises(DataError, match="training images hold no object"):
        harness.check({"train": Without(train, difficult=False), "test": test})
    with pytest.raises(DataError, match="no object to find that is not difficult"):
        harness.check({"train": train, "test": Without(test, difficult=True)})


def test_an_encoder_of_one_size_is_refused_before_anything_is_searched(
    stores, tmp_path, monkeypatch
):
    def refuse(*_):
        raise AssertionError("searched")

    monkeypatch.setattr("eval.networks.proposals.open_proposals", refuse)
    tested = subject(stores[0])
    plain = type(tested.encoder).forward

    def choosy(self, images, layers):
        assert images.shape[-2:] == (64, 64), "Input does not match the model"
        return plain(self, images, layers)

    monkeypatch.setattr(type(tested.encoder), "forward", choosy)
    with pytest.raises(UsageError, match="one size only"):
        detected(QUICK, tested, stores, tmp_path / "a")


def test_the_command_and_its_refusals(bench, workspace, tiny_photos):
    place = ("--workers", "0", "--workspace", workspace)
    bench.ok("pretrain", "random", *TOY, *SCENES, "--workspace", workspace)
    data = ("--data", "scenes:train=6,test=4")
    result = bench("detect", *DETECT, *data, *place)  # conv5: RoI pooling takes pool5's place
    assert result.code == 0, result.err
    assert "detection/fast-rcnn@1 (a) conv5" in result.out
    assert "(a) steps=3" in result.out  # below the table
    path = only(workspace, "evaluation/*/record.json")
    record = json.loads(path.read_text())
    assert record["identity"]["layer"] == "conv5"
    assert {"map11", "map", "coco_map"} <= record["metrics"].keys()
    files = {"predictions.npz", "detections.png", "precision-recall.png"}
    assert files <= record["files"].keys()
    assert not (path.parent / "checkpoint.pt").exists()
    with np.load(path.parent / "predictions.npz") as arrays:
        stored = score_with_intervals(FastRCNN(QUICK), dict(arrays))
    assert stored == pytest.approx(record["metrics"])
    assert bench("detect", "--layer", "conv5", *DETECT, *data, *place).out == result.out

    learnt = bench.ok("detect", "--layer", "conv5", *DETECT, "--proposals", "rpn", *data, *place)
    assert "proposals=rpn" in learnt.out
    detect = ("detect", "--layer", "conv5")
    fails(bench(*detect, "--short", "900", "--longest", "800", *data, *place), 2, "--short 900")
    fails(bench(*detect, "--proposals", "edges", *data, *place), 2, "edges")
    fails(bench(*detect, "--rois", "0", *data, *place), 2, "--rois")
    fails(bench("detect", "--layer", "conv9", *DETECT, *data, *place), 2, "conv9")
    photos = ("--data", f"folder:{tiny_photos}")
    refused = bench(*detect, *DETECT, *photos, *place)
    assert refused.code in (1, 2)
    fails(refused, refused.code, "detection")
