"""Folders and images that are not what they should be."""

import json
import shutil
from pathlib import Path

import pytest

from helpers.bench import Bench
from helpers.photos import draw_photo
from helpers.refusals import FINETUNE, PRETRAIN, PROBE, contents, fails, only
from ssl_bench.data.faults import EXAMPLES


# ---- folders and images
def test_missing_folder(bench: Bench, workspace: Path, tmp_path: Path) -> None:
    path = tmp_path / "nowhere"
    result = bench(*PRETRAIN, "--data", f"folder:{path}", "--workspace", workspace)
    fails(result, 1, str(path), "existing")
    assert not workspace.exists()


@pytest.mark.parametrize("layout", ["", "train"])
def test_empty_folder(bench: Bench, workspace: Path, tmp_path: Path, layout: str) -> None:
    path = tmp_path / "empty"
    (path / layout).mkdir(parents=True)
    result = bench(*PRETRAIN, "--data", f"folder:{path}", "--workspace", workspace)
    fails(result, 1, str(path / layout), ".jpg" if not layout else "<class>")
    assert not workspace.exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_class_folder_without_images(bench, finished, tiny_photos, split):
    """In train it is an error; in val a class may have no images, but not all of them none."""
    emptied = ["bee"] if split == "train" else ["ant", "bee", "cat"]
    for name in emptied:
        shutil.rmtree(tiny_photos / split / name)
        (tiny_photos / split / name).mkdir()
    result = bench(*PROBE, "--data", f"folder:{tiny_photos}", "--workspace", finished)
    folder = tiny_photos / split / "bee" if split == "train" else tiny_photos / split
    fails(result, 1, str(folder), "has no images")


def test_flat_folder_cannot_be_evaluated_on(bench, finished, tiny_photos):
    flat = tiny_photos / "val" / "ant"
    result = bench(*PROBE, "--data", f"folder:{flat}", "--workspace", finished)
    fails(result, 1, str(flat), "train/ and val/")


def test_train_without_val(bench: Bench, finished: Path, tiny_photos: Path) -> None:
    shutil.rmtree(tiny_photos / "val")
    result = bench(*PROBE, "--data", f"folder:{tiny_photos}", "--workspace", finished)
    fails(result, 1, str(tiny_photos), "val/")


def spoil(path: Path, how: str) -> None:
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-300])
    elif how == "text":
        path.write_text("this is no image")
    elif how == "empty":
        path.write_bytes(b"")
    else:
        draw_photo(0, 40, 7).save(path)


DAMAGES = {
    "truncated": "cannot be read as an image",
    "text": "not an image",
    "empty": "not an image",
    "small": "is 40×7, and an image has at least 8 px a side",
}


@pytest.mark.parametrize("how", DAMAGES)
def test_bad_image(bench: Bench, finished: Path, tiny_photos: Path, how: str) -> None:
    before = contents(finished)
    path = tiny_photos / "train" / "bee" / "3.png"
    spoil(path, how)
    command = [*PRETRAIN, "--data", f"folder:{tiny_photos}", "--workspace", finished]
    fails(bench(*command), 1, str(path), DAMAGES[how], "--skip-bad-images")
    assert contents(finished) == before
    skipping = bench.ok(*command, "--skip-bad-images")
    assert "1 bad image" in skipping.out
    record = json.loads(only(finished, "pretrain/context-*/record.json").read_text())
    assert len(record["details"]["skipped_images"]) == 1
    assert str(path) in record["details"]["skipped_images"][0]
    assert record["details"]["images"] == 17


def test_several_bad_images_are_in_one_report(bench, workspace, tiny_photos):
    for name in ("ant", "bee", "cat"):
        spoil(tiny_photos / "train" / name / "3.png", "text")
    command = [*PRETRAIN, "--data", f"folder:{tiny_photos}", "--workspace", workspace]
    result = bench(*command)
    assert result.code == 1
    first, *named, last = result.err.splitlines()[-5:]
    assert first == "bench: 3 faults in folder:photos train:"
    for name, line in zip(("ant", "bee", "cat"), named, strict=True):
        assert f"{name}/3.png cannot be read as an image (not an image)" in line
    assert last == "mend them, or pass --skip-bad-images to leave these images out"
    assert result.err.count("--skip-bad-images") == 1
    assert "3 bad images" in bench(*command, "--skip-bad-images").out


def test_nothing_but_bad_images(bench: Bench, workspace: Path, tmp_path: Path) -> None:
    """There is nothing left to skip to, so the advice must not be to skip."""
    flat = tmp_path / "flat"
    flat.mkdir()
    spoil(flat / "a.jpg", "text")
    command = [*PRETRAIN, "--data", f"folder:{flat}", "--workspace", workspace]
    result = bench(*command, "--skip-bad-images")
    fails(result, 1, str(flat / "a.jpg"))
    assert "or pass --skip-bad-images" not in result.err


def test_hundreds_of_bad_images_are_counted(bench: Bench, workspace: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for i in range(EXAMPLES + 7):
        spoil(flat / f"a photo {i:03}.jpg", "text")
    result = bench(*PRETRAIN, "--data", f"folder:{flat}", "--workspace", workspace)
    *shown, more, _ = result.err.splitlines()[-EXAMPLES - 2 :]
    assert [f"{i:03}.jpg" in line for i, line in enumerate(shown)] == [True] * EXAMPLES
    assert more == "  … and 7 more like these"


def test_evaluation_records_what_it_skipped(bench, finished, tiny_photos):
    bad = [tiny_photos / "train" / "bee" / "3.png", tiny_photos / "val" / "ant" / "1.png"]
    for path in bad:
        spoil(path, "text")
    command = [*PROBE, "--data", f"folder:{tiny_photos}", "--workspace", finished]
    fails(bench(*command), 1, "3.png", "--skip-bad-images")
    result = bench.ok(*command, "--skip-bad-images")
    record = only(finished, "evaluation/*/record.json").read_text()
    for path in bad:
        assert path.name in record
    assert "bad image" in result.out


def test_single_class(bench: Bench, finished: Path, tiny_photos: Path) -> None:
    before = contents(finished)
    for split in ("train", "val"):
        for name in ("bee", "cat"):
            shutil.rmtree(tiny_photos / split / name)
    for command in (PROBE, (*FINETUNE, "--labels", "2")):
        result = bench(*command, "--data", f"folder:{tiny_photos}", "--workspace", finished)
        fails(result, 1, "1 class", "two")
    assert contents(finished) == before


def test_class_in_val_that_train_lacks(bench: Bench, finished: Path, tiny_photos: Path) -> None:
    before = contents(finished)
    shutil.rmtree(tiny_photos / "train" / "bee")
    result = bench(*PROBE, "--data", f"folder:{tiny_photos}", "--workspace", finished)
    fails(result, 1, str(tiny_photos / "val"), "'bee'", "train/")
    assert contents(finished) == before


def test_class_whose_images_are_all_bad(bench: Bench, finished: Path, tiny_photos: Path) -> None:
    for path in (tiny_photos / "train" / "bee").iterdir():
        spoil(path, "text")
    command = [*PROBE, "--data", f"folder:{tiny_photos}", "--workspace", finished]
    fails(bench(*command, "--skip-bad-images"), 1, "'bee'", "train")


def test_too_few_images_for_few_labels(bench: Bench, finished: Path, tiny_photos: Path) -> None:
    (tiny_photos / "train" / "cat" / "0.jpg").unlink()
    command = [*FINETUNE, "--data", f"folder:{tiny_photos}", "--workspace", finished]
    made = bench(*command, "--labels", "6")
    assert made.code == 0, made.err
    assert "than 6 have cat (5): all taken" in made.err
    (path,) = finished.glob("evaluation/finetune*/record.json")
    assert json.loads(path.read_text())["details"]["selection"]["fewer"] == {"cat": 5}


def test_too_few_images_to_hold_out(bench: Bench, finished: Path, tiny_photos: Path) -> None:
    for name in ("ant", "bee", "cat"):
        for path in sorted((tiny_photos / "train" / name).iterdir())[1:]:
            path.unlink()
    result = bench(*PROBE, "--data", f"folder:{tiny_photos}", "--workspace", finished)
    fails(result, 1, "each of 3 images is a class of its own", "held out")
