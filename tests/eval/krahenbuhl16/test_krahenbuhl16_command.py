"""`bench finetune` by Krähenbühl et al.: one label an image, several, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from helpers.photos import draw_photo
from helpers.refusals import SCENES, fails, only
from helpers.voc_folders import annotate, thing, write_list
from ssl_bench import catalogue

COMMAND = ("finetune", "--workers", 0)
SHORT = ("--steps", 3, "--batch-size", 4, "--head", 8, "--crops", 2)


def record(workspace: Path) -> dict[str, Any]:
    return json.loads(only(workspace, "evaluation/*/record.json").read_text())


def test_the_command_on_one_label_each(bench, finished):
    place = (*SCENES, "--workspace", finished)
    result = bench.ok(*COMMAND, *SHORT, *place)
    assert "finetune/krahenbuhl16@1 (a) pool5" in result.out
    assert "(a) steps=3 batch_size=4 head=8 crops=2\n" in result.out  # below the table
    made = record(finished)
    assert made["details"]["metric"] == "top1"
    assert made["details"]["interval"] == "over the test images, Wilson's"
    assert made["details"]["selection"]["training_images"] == 60
    assert not list(finished.rglob("checkpoint.pt"))
    assert bench(*COMMAND, *SHORT, *place).out == result.out  # from the record
    kept = bench.ok(*COMMAND, *SHORT, *place, "--freeze", "--labels", 2, "--rescale")
    assert " train=fc6-8 labels=2 " in kept.out
    assert "rescale=True" in kept.out


def test_what_the_command_refuses(bench, finished):
    place = (*SCENES, "--workspace", finished)
    fails(bench(*COMMAND, *place, "--train", "fc7"), 2, "--train", "fc6-8")
    fails(bench(*COMMAND, *place, "--dimensions", 9), 2, "--dimensions", "finetune/linear-head@1")
    few = ("finetune", "--protocol", "linear-head", *place)
    fails(bench(*few, "--crops", 3), 2, "--crops", "finetune/krahenbuhl16@1")
    fails(bench(*COMMAND, *place, "--crops", 0), 2, "--crops")
    fails(bench(*COMMAND, *place, "--layer", "fc7"), 2, "layer", "fc7")
    assert not list(finished.glob("evaluation/*/log.jsonl"))


@pytest.fixture
def year(tmp_path: Path) -> Path:
    """VOC's layout: train and test of six and four images of 96×80 px; cats are all difficult."""
    root = tmp_path / "VOC2007"
    (root / "JPEGImages").mkdir(parents=True)
    for i in range(10):
        things = [thing("cat", difficult=1)] if i % 3 == 0 else []
        things += [thing("dog")] if i % 2 else [thing("person")]
        annotate(root, f"{i:06}", *things)
        draw_photo(i).save(root / "JPEGImages" / f"{i:06}.jpg")
    for name, images in (("trainval", range(6)), ("test", range(6, 10))):
        write_list(root, name, [f"{i:06}" for i in images])
    return root


def test_the_command_on_several_labels_an_image(bench, finished, year):
    place = ("--data", f"voc:{year},name=mini", "--workspace", finished)
    result = bench.ok(*COMMAND, *SHORT, *place)
    assert "finetune/krahenbuhl16@1: map_uninterpolated" in result.out
    made = record(finished)
    kinds = ("map_uninterpolated", "map11", "map")
    assert set(made["metrics"]) == {n + end for n in kinds for end in ("", "_low", "_high")}
    assert made["details"]["metric"] == "map_uninterpolated"
    assert made["details"]["interval"] == "over the test images, bootstrap"
    folder = only(finished, "evaluation/*/record.json").parent
    assert (folder / "precision-recall.png").read_bytes()[:4] == b"\x89PNG"
    assert "precision-recall.png" in made["files"]
    with np.load(folder / "predictions.npz") as kept:
        targets, scores = kept["targets"], kept["scores"]
    classes = catalogue.dataset(f"voc:{year}").split("test").classes
    dog, cat, person = (classes.index(name) for name in ("dog", "cat", "person"))
    assert targets[:, [dog, cat, person]].tolist() == [[0, -1, 1], [1, 0, 0], [0, 0, 1], [1, -1, 0]]
    assert scores.shape == (4, 20)
    expected = np.mean(
        [average_precision_score(targets[:, c], scores[:, c]) for c in (dog, person)]
    )
    assert made["metrics"]["map_uninterpolated"] == pytest.approx(100 * expected)


def test_a_damaged_image_is_named_or_left_out(bench, finished, year):
    (year / "JPEGImages" / "000002.jpg").write_bytes(b"no picture")
    place = ("--data", f"voc:{year},name=mini", "--workspace", finished)
    fails(bench(*COMMAND, *SHORT, *place), 1, "000002.jpg", "--skip-bad-images")
    bench.ok(*COMMAND, *SHORT, *place, "--skip-bad-images")
    assert record(finished)["details"]["selection"]["training_images"] == 5
