"""Images that are too large, start programs or have strange names."""

import io
import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.bench import Bench
from helpers.hostile import BELL, READERS, answered, evaluation, plain, refused
from helpers.hostile_files import EPS, IMAGES
from helpers.photos import draw_photo
from helpers.refusals import only
from helpers.spoilt import edit
from ssl_bench import catalogue
from ssl_bench.files import file_digest
from ssl_bench.pictures.inpaint import joined_holes


def test_pillow_would_start_ghostscript(ghostscript: Path) -> None:
    """Else the tests below could not fail."""
    with pytest.raises((OSError, ValueError)), Image.open(io.BytesIO(EPS)) as image:
        image.load()
    assert ghostscript.exists()


@pytest.fixture
def photos_with(tmp_path: Path) -> Callable[[str], Path]:
    """A flat folder of two photographs and one of IMAGES, whose path is given."""

    def made(name: str) -> Path:
        folder = tmp_path / "photos"
        folder.mkdir()
        for i in (0, 1):
            draw_photo(i).save(folder / f"good{i}.png")
        (folder / name).write_bytes(IMAGES[name]())
        return folder / name

    return made


@pytest.mark.parametrize("name", IMAGES)
def test_a_hostile_image_is_named_or_left_out(bench, workspace, ghostscript, photos_with, name):
    path, started = photos_with(name), time.monotonic()
    command = ("pretrain", "random", "--image-size", 64, "--width", 0.1, "--workers", 0)
    command += ("--data", f"folder:{path.parent}", "--workspace", workspace)
    refused(bench(*command), path)
    skipping = bench.ok(*command, "--skip-bad-images")
    assert "1 bad image skipped" in skipping.out
    record = json.loads(only(workspace, "pretrain/random-*/record.json").read_text())
    assert str(path) in record["details"]["skipped_images"][0]
    assert not ghostscript.exists()
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("name", IMAGES)
def test_a_hostile_image_is_not_filled_and_no_mask(bench, work, ghostscript, photos_with, name):
    path = photos_with(name)
    place = ("--out", "filled", "--workspace", "runs")
    result = bench("inpaint", path.parent, *place)
    assert result.code == 1, result
    assert sum(str(path) in line for line in result.err.splitlines()) == 1, result.err
    assert {found.name for found in Path("filled").iterdir()} == {"good0.png", "good1.png"}
    refused(bench("inpaint", path.parent / "good0.png", "--mask", path, *place), path)
    assert not ghostscript.exists()


def _cut_photo() -> bytes:
    file = io.BytesIO()
    draw_photo(1).save(file, "PNG")
    return file.getvalue()[:-300]


@pytest.mark.parametrize("name", [*(n for n in IMAGES if n.endswith("png")), "cut.png"])
def test_a_hostile_picture_in_a_run_is_named(bench, work, ghostscript, name):
    folder = evaluation()
    path = folder / "preview.png"
    path.write_bytes(_cut_photo() if name == "cut.png" else IMAGES[name]())
    edit(folder, lambda record: record["files"].update({path.name: file_digest(path)}))
    words = ("export", "mini.toml", "--out", "again", "--workspace", "runs", "--workers", 0)
    results = [bench(*READERS["report"]), bench(*words)]
    assert not ghostscript.exists()
    for result in results:
        answered(result, path)
        if name not in ("wide.png", "high.png"):  # they are pictures
            assert result.code, result


@pytest.mark.parametrize("kind", ["gif", "tiff"])
def test_of_many_frames_the_first_is_taken(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("frames.png" if kind == "gif" else "frames.tif")
    frames = [Image.new("L", (80, 80), i % 256) for i in range(300)]
    frames[7].save(path, kind, save_all=True, append_images=frames)
    split, started = catalogue.dataset(f"folder:{tmp_path}").split("train"), time.monotonic()
    assert (split.load(0, 72, 64)[0] == 7).all()
    assert time.monotonic() - started < 2


NAMES = ["a\nbench: b.png", f"{BELL}.png", "a\rb.png", "a\x9b2J.png"]


@pytest.mark.parametrize("name", NAMES)
def test_an_image_s_name_is_one_line(bench: Bench, work: Path, name: str) -> None:
    folder = work / "photos"
    folder.mkdir()
    draw_photo(1).save(folder / "good.png")
    (folder / name).write_bytes(b"nothing")
    small = ("--image-size", 64, "--width", 0.1, "--workers", 0, "--data", f"folder:{folder}")
    command = ("pretrain", "random", *small, "--workspace", "runs")
    refused(bench(*command), "not an image")
    bench.ok(*command, "--skip-bad-images")
    for content in (b"nothing", (folder / "good.png").read_bytes()):
        (folder / name).write_bytes(content)
        result = bench("inpaint", folder, "--out", "filled", "--workspace", "runs")
        plain(result.out + result.err)
        assert not any(line.startswith("bench: b.png") for line in result.err.splitlines())


def test_a_set_s_name_is_one_line(bench: Bench, work: Path) -> None:
    folder = work / f"photos\nbench: {BELL}"
    folder.mkdir()
    draw_photo(1).save(folder / "good.png")
    small = ("--image-size", 64, "--width", 0.1, "--workers", 0, "--data", f"folder:{folder}")
    result = bench("pretrain", "random", *small, "--workspace", "runs")
    plain(result.out + result.err)
    assert not any(line.startswith("bench: ") for line in result.out.splitlines())
    answered(result)


def test_a_name_that_is_too_long_stops_no_other_image(bench: Bench, work: Path) -> None:
    """Its scratch file would have a longer name than the system takes."""
    Path("photos").mkdir()
    for name in ("a", "b" * 250, "c"):
        draw_photo(1).save(Path("photos") / f"{name}.png")
    bench("inpaint", "photos", "--out", "filled", "--workspace", "runs")
    assert {"a.png", "c.png"} <= {path.name for path in Path("filled").iterdir()}


def test_many_holes_are_not_held_at_once() -> None:
    """A thousand spots in a mask of 500 kB would take 500 MB."""
    hole = np.zeros((64, 8000), bool)
    hole[32, 4::8] = True
    tracemalloc.start()
    count = sum(1 for _ in joined_holes(hole))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 1000
    assert peak < 50 * hole.size
