"""`bench inpaint`: masks of any kind and place, and those that are refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.bench import Bench
from helpers.inpaint import Box, Runs, box_hole, only_said, save_mask, values_of
from helpers.photos import draw_photo
from helpers.refusals import fails


def save_as(hole: np.ndarray, path: Path, kind: str) -> Path:
    grey = hole.astype(np.uint8) * 255
    made = {
        "8 bits": Image.fromarray(grey),
        "16 bits": Image.fromarray(grey.astype(np.uint16) * 257),
        "RGB": Image.fromarray(np.stack([grey] * 3, 2)),
        "bilevel": Image.fromarray(grey).convert("1"),
        "not quite black and white": Image.fromarray(np.where(hole, 200, 40).astype(np.uint8)),
    }
    made[kind].save(path)
    return path


HOLES: dict[str, list[Box]] = {
    "a corner": [(0, 0, 20, 30)],
    "an edge": [(60, 150, 25, 30)],
    "several": [(0, 0, 9, 9), (50, 60, 20, 10), (141, 60, 9, 40), (5, 171, 30, 9)],
    "a scratch": [(60, 5, 2, 110)],
}


@pytest.mark.parametrize("where", HOLES)
def test_a_mask_may_have_holes_anywhere(runs, tmp_path, bench, where):
    """With a network trained for it; what was in any of them changes none of the others."""
    hole = box_hole(150, 180, *HOLES[where])
    mask = save_mask(hole, tmp_path / "mask.png")
    image = np.asarray(draw_photo(3, 180, 150))
    Image.fromarray(image).save(tmp_path / "image.png")
    Image.fromarray(np.where(hole[..., None], 0, image)).save(tmp_path / "black.png")
    words = (tmp_path / "image.png", tmp_path / "black.png", "--mask", mask)
    result = bench.ok("inpaint", *words, "--out", tmp_path / "out", *runs.network("region"))
    assert result.out.splitlines()[0].count("hole of") == len(HOLES[where])
    found = [values_of(tmp_path / "out" / f"{name}.png") for name in ("image", "black")]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0][~hole], image[~hole])
    for top, left, down, across in HOLES[where]:
        part = np.s_[top : top + down, left : left + across]
        assert (found[0][part] != image[part]).any(2).mean() > 0.9


def test_a_mask_may_be_of_any_kind(runs: Runs, tmp_path: Path, bench: Bench) -> None:
    hole = box_hole(80, 96, (10, 60, 20, 20))
    draw_photo(0).save(tmp_path / "image.png")
    found = []
    for kind in ("8 bits", "16 bits", "RGB", "bilevel", "not quite black and white"):
        mask = save_as(hole, tmp_path / "mask.png", kind)
        words = (tmp_path / "image.png", "--mask", mask, "--out", tmp_path / kind)
        bench.ok("inpaint", *words, *runs.network("region"))
        found.append(values_of(tmp_path / kind / "image.png"))
    changed = (found[0] != np.asarray(draw_photo(0))).any(2)
    assert not changed[~hole].any()
    assert changed[hole].mean() > 0.9
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_a_mask_of_another_size_fails_that_image_only(runs, tmp_path, bench):
    draw_photo(0, 64, 70).save(tmp_path / "another.png")
    draw_photo(1).save(tmp_path / "fitting.png")
    mask = save_mask(box_hole(80, 96, (30, 40, 10, 10)), tmp_path / "mask.png")
    words = (tmp_path / "another.png", tmp_path / "fitting.png", "--mask", mask)
    result = bench("inpaint", *words, "--out", tmp_path / "out", *runs.network("region"))
    line = only_said(result)
    for part in (str(tmp_path / "another.png"), "64×70", "96×80"):
        assert part in line
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["fitting.png"]


@pytest.mark.parametrize("what", ["black", "text", "missing", "a folder"])
def test_a_mask_that_is_none_is_named(runs: Runs, tmp_path: Path, bench: Bench, what: str) -> None:
    draw_photo(0).save(tmp_path / "image.png")
    mask = tmp_path / "mask.png"
    if what == "black":
        save_mask(box_hole(80, 96), mask)
    elif what == "text":
        mask.write_text("no image")
    elif what == "a folder":
        mask.mkdir()
    words = (tmp_path / "image.png", "--mask", mask, "--out", tmp_path / "out")
    fails(bench("inpaint", *words, *runs.network("region")), 2, str(mask))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("kind", "box"), [
    ("central", (40, 50, 60, 50)),  # larger than 50 / 128 of 150 px
    ("central", (70, 0, 20, 20)),  # at the edge
    ("region", (10, 20, 130, 130)),  # more than a quarter
])  # fmt: skip
def test_a_hole_that_a_network_cannot_see_around_is_named(runs, tmp_path, bench, kind, box):
    draw_photo(0, 200, 150).save(tmp_path / "image.png")
    mask = save_mask(box_hole(150, 200, box), tmp_path / "mask.png")
    words = (tmp_path / "image.png", "--mask", mask, "--out", tmp_path / "out")
    line = only_said(bench("inpaint", *words, *runs.network(kind)))
    top, left, down, across = box
    for part in (str(tmp_path / "image.png"), f"{across}×{down}", f"({left}, {top})"):
        assert part in line
    assert list((tmp_path / "out").iterdir()) == []
