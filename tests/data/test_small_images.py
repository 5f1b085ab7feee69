"""Images below the crop are enlarged and counted; those of a few pixels are refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.bench import Bench
from helpers.photos import draw_photo
from helpers.refusals import fails, only
from ssl_bench import catalogue
from ssl_bench.data.images import fit_square
from ssl_bench.data.store.squares import LEAST, open_store
from ssl_bench.records.record import PretrainRecord

pytestmark = pytest.mark.usefixtures("cache")  # its own for each test


def sized(folder: Path, *sides: int) -> Path:
    folder.mkdir()
    for i, side in enumerate(sides):
        draw_photo(i, side, side + 4).save(folder / f"{i}.png")
    return folder


def test_small_images_are_enlarged_and_counted(tmp_path: Path) -> None:
    folder = sized(tmp_path / "set", LEAST, 32, 63, 64, 100)
    store = open_store(catalogue.dataset(f"folder:{folder}"), "train", 64, workers=0)
    assert store.index.enlarged == 3
    assert store.index.notes == ["3 of 5 images are smaller than 64 px, and enlarged"]
    for name, row in zip(store.index.names, store.pixels, strict=True):
        with Image.open(folder / name) as image:
            np.testing.assert_array_equal(row, fit_square(image, 72))


def test_pretraining_on_small_images_says_so_once(
    bench: Bench, workspace: Path, tmp_path: Path
) -> None:
    folder = sized(tmp_path / "set", 32, 32, 32, 32)
    command = ("pretrain", "random", "--image-size", 64, "--width", 0.1, "--workers", 0,
               "--data", f"folder:{folder}", "--workspace", workspace)  # fmt: skip
    first, again = bench(*command), bench(*command, "--seed", 1)
    assert (first.code, again.code) == (0, 0), first
    said = "4 of 4 images are smaller than 64 px, and enlarged"
    assert f"folder:set train: {said}" in first.err
    assert said not in again.err  # they lie decoded in the cache
    for path in workspace.glob("pretrain/*/record.json"):
        record = PretrainRecord.model_validate_json(path.read_text())
        assert record.details.data_notes == {"train": [said]}


def test_check_names_what_has_hardly_a_pixel(bench: Bench, tmp_path: Path) -> None:
    folder = sized(tmp_path / "set", 32, LEAST - 1)
    made = bench("data", "check", f"folder:{folder}", "--workers", 0)
    fails(made, 1, "1.png is 7×11", "at least 8 px")
    assert "train, classification: 1 image" in made.out


@pytest.mark.parametrize(
    ("arch", "size", "parts"),
    [
        ("alexnet", 32, ("at least 64 px", "32")),
        ("torchvision:inception_v3", 32, ("inception_v3 cannot be used at 32 px",)),
    ],
)
def test_a_network_that_is_too_large_is_refused_before_images_are_decoded(
    bench: Bench, cache: Path, workspace: Path, tmp_path: Path, arch: str, size: int,
    parts: tuple[str, ...],
) -> None:  # fmt: skip
    folder = sized(tmp_path / "set", 32)
    made = bench("pretrain", "random", "--arch", arch, "--image-size", size, "--workers", 0,
                 "--data", f"folder:{folder}", "--workspace", workspace)  # fmt: skip
    fails(made, 2, *parts)
    assert not cache.exists()


def test_a_resnet_learns_from_images_of_32_px(
    bench: Bench, workspace: Path, tmp_path: Path
) -> None:
    """Its last map is a single cell, which the decoder starts from."""
    folder = sized(tmp_path / "set", 32, 32, 32, 32)
    made = bench("pretrain", "context-encoder", "--arch", "torchvision:resnet18", "--image-size",
                 32, "--steps", 1, "--batch-size", 4, "--workers", 0, "--data",
                 f"folder:{folder}", "--workspace", workspace)  # fmt: skip
    assert made.code == 0, made
    record = only(workspace, "pretrain/context-encoder-*/record.json").read_text()
    assert "smaller than" not in record
