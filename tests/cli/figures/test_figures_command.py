"""`bench figures`: files fit for print, from any workspace and any images."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.figures import pairs
from helpers.bench import Bench, Result
from helpers.gallery import (
    DATA,
    DPI,
    SIZE,
    STORED,
    WIDTH,
    levels,
    rows_of,
)
from helpers.refusals import fails
from ssl_bench import catalogue
from ssl_bench.data.images import fit_square
from ssl_bench.evaluation.reference import Reference
from ssl_bench.pictures.gallery import Gallery

NAMES = ["filters", "masks", "methods", "neighbours", "pairs", "regions"]


def figures(bench: Bench, out: Path, workspace: Path, *words: object, data: str = DATA) -> Result:
    where = ("--data", data, "--out", out, "--workspace", workspace)
    return bench("figures", *words, *where, "--count", 2, "--workers", 0)


# ---- files
def test_all_six_are_written_for_print(runs, tmp_path, bench):
    """300 dpi, and the width of a page's text."""
    folder, names = runs
    out = tmp_path / "new" / "figures"
    named = [word for name in names for word in ("--encoder", name)]
    result = figures(bench, out, folder, *named)
    assert result.code == 0, result.err
    assert "left out" not in result.err
    assert sorted(p.name for p in out.iterdir()) == [
        f"{n}.{s}" for n in NAMES for s in ("pdf", "png")
    ]
    for name in NAMES:
        assert f"{name}: {out / name}.png, {out / name}.pdf" in result.out
        with Image.open(out / f"{name}.png") as image:
            assert image.info["dpi"] == pytest.approx((DPI, DPI), abs=0.1)
            assert image.width == round(WIDTH * DPI)
            height = image.height / DPI
            assert len(image.convert("RGB").getcolors(1 << 24) or []) > 100
        content = (out / f"{name}.pdf").read_bytes()
        assert content.startswith(b"%PDF")
        box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", content)
        assert box
        assert [float(x) / 72 for x in box.groups()] == pytest.approx([WIDTH, height], abs=0.01)


# ---- what cannot be drawn
def test_what_needs_a_network_is_left_out_with_a_reason(finished, tmp_path, bench):
    """Masks, neighbours and filters are there with an untrained encoder alone."""
    out = tmp_path / "new" / "out"
    result = figures(bench, out, finished)
    assert result.code == 0, result.err
    assert {p.stem for p in out.iterdir()} == {"filters", "masks", "neighbours"}
    left = [line for line in result.err.splitlines() if "left out" in line]
    assert sorted(line.split()[0] for line in left) == ["methods", "pairs", "regions"]
    assert all("`bench pretrain inpainting" in line for line in left)
    assert "--mask random-region" in next(line for line in left if line.startswith("regions"))


@pytest.mark.parametrize("name", ["methods", "pairs", "regions"])
def test_what_is_asked_for_by_name_is_refused_by_name(finished, tmp_path, bench, name):
    result = figures(bench, tmp_path / "out", finished, name)
    fails(result, 2, name, "bench pretrain inpainting", "--encoder")


def test_a_central_network_draws_no_regions(runs, tmp_path, bench):
    folder, names = runs
    result = figures(bench, tmp_path / "out", folder, "regions", "--encoder", names[0])
    fails(result, 2, "regions", "--mask random-region")


def test_an_unknown_figure_brings_the_nearest_names(runs, tmp_path, bench):
    folder, _ = runs
    result = figures(bench, tmp_path / "out", folder, "masks", "neighbors")
    fails(result, 2, "figure 'neighbors'", "did you mean neighbours")
    assert not (tmp_path / "out").exists()


# ---- a folder of one's own
def test_pairs_of_a_flat_folder(runs, tmp_path, flat, bench):
    """Without a test split its images are shown."""
    workspace, names = runs
    out = tmp_path / "out"
    words = ("pairs", "--encoder", names[0])
    result = figures(bench, out, workspace, *words, data=f"folder:{flat}")
    assert result.code == 0, result.err
    assert sorted(p.name for p in out.iterdir()) == ["pairs.pdf", "pairs.png"]
    references = [Reference(names[0], workspace)]
    own = Gallery(references, catalogue.dataset(f"folder:{flat}"), count=2, workers=0)
    rows = rows_of(pairs(own))
    for place, picture in zip(own.chosen(SIZE), rows["original"], strict=True):
        with Image.open(flat / f"{place}.png") as image:
            square = fit_square(image, STORED)[8:-8, 8:-8]
        np.testing.assert_array_equal(levels(picture), square)
