"""Images that can teach a pretext nothing: said before the first step, in a line."""

from pathlib import Path

import pytest
from PIL import Image

from helpers.photos import draw_photo
from helpers.refusals import fails

COLOURS = ["colorization", "split-brain"]
NET = ("--norm", "batch", "--image-size", 64, "--width", 0.1)
FEW = ("--hidden", 8, "--steps", 1, "--batch-size", 4, "--workers", 0)


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    folder = tmp_path / "grey"
    folder.mkdir()
    for seed in range(5):
        draw_photo(seed).convert("L").save(folder / f"{seed}.png")
    return folder


@pytest.mark.parametrize("method", COLOURS)
def test_colours_are_not_learnt_from_grey_images(bench, grey, workspace, method):
    """A single image with colours is enough to go on: how many there are is the user's affair."""
    command = ("pretrain", method, *NET, *FEW, "--data", f"folder:{grey}", "--workspace", workspace)
    fails(bench(*command), 1, "of 5 training images looked at none has a colour")
    assert not list(workspace.rglob("record.json"))
    draw_photo(5).save(grey / "5.png")
    bench.ok(*command)


@pytest.mark.parametrize("method", ["simclr", "autoencoder"])
def test_nothing_is_learnt_from_one_colour(bench, tmp_path, workspace, method):
    """As of files that were written wrongly. A row without training needs nothing of them."""
    for i in range(3):
        Image.new("RGB", (64, 64 + i), (7, 0, 9)).save(tmp_path / f"{i}.png")
    place = ("--data", f"folder:{tmp_path}", "--workers", 0, "--workspace", workspace)
    few = ("--arch", "alexnet", *NET, "--steps", 1, "--batch-size", 4)
    said = "3 training images, all of one colour (7, 0, 9)"
    fails(bench("pretrain", method, *few, *place), 1, said)
    assert not workspace.exists()
    bench.ok("pretrain", "random", *NET, *place)
