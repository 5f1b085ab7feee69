"""`bench inpaint`: what is filled and what stays, where it is written, what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.bench import Bench, Result
from helpers.inpaint import CENTRAL, SIZE, Paint, Runs, box_hole, only_said, save_mask, values_of
from helpers.photos import draw_photo
from helpers.refusals import fails
from ssl_bench.evaluation.reference import Reference
from ssl_bench.pictures.inpaint import Filler, inpaint
from ssl_bench.pictures.photograph import Photograph


# ---- what is filled
def odd_files(folder: Path) -> Path:
    """One of every kind, in two folders, and one that is no image."""
    photo = draw_photo(0, 150, 110)
    alpha = Image.linear_gradient("L").resize(photo.size)
    (folder / "deeper").mkdir(parents=True)
    photo.convert("L").save(folder / "grey.png")
    Image.merge("LA", (photo.convert("L"), alpha)).save(folder / "grey-alpha.png")
    photo.save(folder / "rgb.jpg")
    Image.merge("RGBA", (*photo.split(), alpha)).save(folder / "deeper" / "rgba.png")
    photo.quantize(64).save(folder / "palette.png")
    photo.quantize(8).save(folder / "transparent.png", transparency=bytes([0, 128]))
    photo.convert("CMYK").save(folder / "cmyk.JPG")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(folder / "turned.v2.jpg", exif=exif)
    deep = np.random.default_rng(0).integers(0, 65536, (60, 50), np.uint16)
    Image.fromarray(deep).save(folder / "sixteen.tif")
    Image.fromarray(deep).save(folder / "deeper" / "sixteen-png.png")
    Photograph(np.random.default_rng(1).integers(0, 65536, (300, 200, 4), np.uint16)).save(
        folder / "sixteen-rgba.png"
    )
    (folder / "broken.jpg").write_text("no image")
    (folder / "notes.txt").write_text("not taken for one")
    return folder


def check_central_hole(before: np.ndarray, after: np.ndarray) -> None:
    """50 / 128 of the short side, in the middle, is new; all else is the same bit for bit."""
    assert before.dtype == after.dtype
    assert before.shape == after.shape
    height, width = before.shape[:2]
    y, x = np.ogrid[:height, :width]
    away = np.maximum(abs(y + 0.5 - height / 2), abs(x + 0.5 - width / 2))  # from the middle
    half = CENTRAL * min(height, width) / 2
    changed = (before != after).any(2)
    assert not changed[away > half].any()
    assert changed[away < half - 2].mean() > 0.9


def test_a_folder_of_odd_files_is_filled_but_for_the_broken_one(runs, tmp_path, bench):
    folder, out = odd_files(tmp_path / "odd"), tmp_path / "new" / "out"
    result = bench("inpaint", folder, "--out", out, *runs.network("central"))
    assert result.code == 1
    said = [line for line in result.err.splitlines() if line.startswith("bench: ")]
    assert len(said) == 1
    assert str(folder / "broken.jpg") in said[0]
    assert "Traceback" not in result.err
    taken = (p for p in folder.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".tif"))
    sources = {path.stem: path for path in taken if path.stem != "broken"}
    assert len(sources) == 11
    assert {p.name for p in out.iterdir()} == {f"{stem}.png" for stem in sources}
    for stem, source in sources.items():
        check_central_hole(values_of(source), values_of(out / f"{stem}.png"))
        assert str(out / f"{stem}.png") in result.out
        with Image.open(out / f"{stem}.png") as image:
            assert image.format == "PNG"


@pytest.mark.parametrize("kind", ["central", "region"])
@pytest.mark.parametrize("side", [90, 128, 300])  # enlarged for the network, as it is, shrunk
def test_what_was_in_the_hole_does_not_matter(runs, tmp_path, bench, kind, side):
    """Two images that differ in their hole only become the same."""
    length = side // 3
    hole = box_hole(side, side, (length, length, length, length))
    mask = save_mask(hole, tmp_path / "mask.png")
    image = np.asarray(draw_photo(1, side, side))
    other = np.where(hole[..., None], 255 - image, image)
    for name, values in (("image", image), ("other", other)):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    words = (tmp_path / "image.png", tmp_path / "other.png", "--mask", mask)
    bench.ok("inpaint", *words, "--out", tmp_path / "out", *runs.network(kind))
    found = [values_of(tmp_path / "out" / f"{name}.png") for name in ("image", "other")]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0][~hole], image[~hole])
    assert found[0][hole].std(0).min() > 2  # a picture, not one colour
    for values in (image, other):
        assert (found[0][hole] != values[hole]).any(1).mean() > 0.9


def test_what_is_around_the_hole_does_matter(runs: Runs) -> None:
    filler = Filler(Reference(runs.central, runs.workspace))
    hole = box_hole(SIZE, SIZE, (39, 39, 50, 50))
    image = np.asarray(draw_photo(2, SIZE, SIZE))
    other = image.copy()
    other[10:30, 50:80] = 255 - other[10:30, 50:80]
    found = [filler.filled(Photograph(values), hole)[0].values[hole] for values in (image, other)]
    assert not np.array_equal(found[0], found[1])


def test_a_fill_of_the_network_s_size_is_the_network_s_own(runs: Runs) -> None:
    """At 128 px nothing is resized: its output in the hole, rounded to 8 bits."""
    filler = Filler(Reference(runs.central, runs.workspace))
    hole = box_hole(SIZE, SIZE, (39, 39, 50, 50))
    image = np.asarray(draw_photo(2, SIZE, SIZE))
    filled, _ = filler.filled(Photograph(image), hole)
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    own = filler.network.fill(pixels, torch.from_numpy(hole)[None, None].float())
    own = own[0].permute(1, 2, 0).cpu().numpy()[hole]
    np.testing.assert_array_equal(filled.values[hole], np.rint(own.astype(np.float64) * 255))


class Painter:
    """Stands in for a network: fills with what `paint` makes of an image and its holes."""

    reach = 1.0

    def __init__(self, paint: Paint) -> None:
        self.paint = paint
        self.shown: list[np.ndarray] = []

    def fill(self, images: torch.Tensor, holes: torch.Tensor) -> torch.Tensor:
        self.shown.append(images[0].permute(1, 2, 0).numpy())
        content = self.paint(images.float() / 255, holes)
        return torch.where(holes.bool(), content, images.float() / 255)


def painted(
    runs: Runs, paint: Paint, image: np.ndarray, hole: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The filled values, and what the network was shown, window by window."""
    filler = Filler(Reference(runs.region, runs.workspace))
    filler.network = painter = Painter(paint)
    return filler.filled(Photograph(image), hole)[0].values, painter.shown


def red(images: torch.Tensor, _holes: torch.Tensor) -> torch.Tensor:
    return torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand_as(images)


def test_the_second_hole_sees_how_the_first_was_filled(runs: Runs) -> None:
    """Until its turn a hole is the mean colour of what is known around it: never its content."""
    hole = box_hole(SIZE, SIZE, (10, 10, 20, 20), (80, 80, 20, 20))
    image = np.asarray(draw_photo(4, SIZE, SIZE)).copy()
    image[hole] = (0, 0, 255)
    mean = np.rint(image[~hole].mean(0))
    values, (before, after) = painted(runs, red, image, hole)
    parts = np.s_[10:30, 10:30], np.s_[80:100, 80:100]
    for part in parts:
        assert (values[part] == (255, 0, 0)).all()
        assert (before[part] == mean).all()
    first = [(after[part] == (255, 0, 0)).all() for part in parts]
    assert sorted(first) == [False, True]
    last = parts[first.index(False)]
    left = box_hole(SIZE, SIZE, (10, 10, 20, 20) if first.index(False) == 0 else (80, 80, 20, 20))
    known = np.where(hole[..., None], (255, 0, 0), image)[~left]
    np.testing.assert_array_equal(after[last], np.broadcast_to(np.rint(known.mean(0)), (20, 20, 3)))


def plane(images: torch.Tensor, holes: torch.Tensor) -> torch.Tensor:
    """What a plane through the known pixels says of the others; the border may be interpolated."""
    known = ~holes[0, 0].bool()
    known[:4], known[-4:], known[:, :4], known[:, -4:] = False, False, False, False
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    terms = torch.stack([x, y, torch.ones_like(x)], 2).double()
    found = torch.linalg.lstsq(terms[known], images[0].permute(1, 2, 0)[known].double())
    return (terms @ found.solution).permute(2, 0, 1)[None].float()


@pytest.mark.parametrize("side", [40, 60, 100, 128, 200, 300])
def test_a_plane_goes_on_in_the_hole_at_any_scale(runs: Runs, side: int) -> None:
    """It would break if the content came back mirrored, or moved by more than half a pixel."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    truth = np.rint(255 * np.stack([x, y, (x + 1 - y) / 2], 2)).astype(np.uint8)
    start, length = side // 5, side // 3
    hole = box_hole(side, side, (start, start + 3, length, length - 2))
    image = np.where(hole[..., None], 0, truth).astype(np.uint8)
    found, shown = painted(runs, plane, image, hole)
    assert len(shown) == 1
    assert np.abs(found.astype(int) - truth.astype(int)).max() <= 1


def test_the_central_hole_fits_every_image_of_32_px(runs: Runs, tmp_path: Path) -> None:
    """Whatever its size rounds to, and whatever a resized hole gains."""
    sources = []
    for side in range(32, 150):
        sources.append(tmp_path / f"{side}.png")
        draw_photo(side, side + side % 3, side).save(sources[-1])
    network = Reference(runs.central, runs.workspace)
    done = list(inpaint(sources, network, "central", tmp_path / "out"))
    assert [found.outcome for found in done if found.target is None] == []
    assert [found.source for found in done] == sources


# ---- where it is written
def test_two_images_of_one_stem_get_two_outputs(runs: Runs, tmp_path: Path, bench: Bench) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for seed, name in enumerate(("x.png", "x.jpg", "y.jpg")):
        draw_photo(seed).save(folder / name)
    bench.ok("inpaint", folder, "--out", out, *runs.network("central"))
    assert {p.name for p in out.iterdir()} == {"x-png.png", "x-jpg.png", "y.png"}
    for target, source in (("x-png", "x.png"), ("x-jpg", "x.jpg"), ("y", "y.jpg")):
        check_central_hole(values_of(folder / source), values_of(out / f"{target}.png"))


def untouched(result: Result, before: dict[Path, bytes]) -> None:
    """Refused before anything was written."""
    folder = next(iter(before)).parent
    assert {p: p.read_bytes() for p in folder.iterdir()} == before, result


def test_two_images_of_one_name_are_refused(runs: Runs, tmp_path: Path, bench: Bench) -> None:
    for seed, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        draw_photo(seed).save(tmp_path / name / "x.png")
    words = (tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out")
    fails(bench("inpaint", *words, *runs.network("central")), 2, "x.png", "rename")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", ["folder", "file", "link"])
def test_no_source_is_written_over(runs: Runs, tmp_path: Path, bench: Bench, given: str) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    draw_photo(0).save(folder / "a.jpg")
    draw_photo(1).save(folder / "b.png")
    (tmp_path / "link").symlink_to(folder)
    before = {p: p.read_bytes() for p in folder.iterdir()}
    named = {"folder": [folder], "file": [folder / "b.png"], "link": [tmp_path / "link"]}
    result = bench("inpaint", *named[given], "--out", folder, *runs.network("central"))
    fails(result, 2, str(folder / "b.png"), "--out")
    untouched(result, before)


def test_no_mask_is_written_over(runs: Runs, tmp_path: Path, bench: Bench) -> None:
    """x.jpg and its mask x.png in one folder, which is --out too."""
    folder = tmp_path / "photos"
    folder.mkdir()
    draw_photo(0).save(folder / "x.jpg")
    mask = save_mask(box_hole(80, 96, (30, 40, 10, 10)), folder / "x.png")
    before = {p: p.read_bytes() for p in folder.iterdir()}
    words = (folder / "x.jpg", "--mask", mask, "--out", folder)
    result = bench("inpaint", *words, *runs.network("region"))
    fails(result, 2, str(mask))
    untouched(result, before)


def test_a_file_is_no_folder_to_write_to(runs: Runs, tmp_path: Path, bench: Bench) -> None:
    draw_photo(0).save(tmp_path / "a.png")
    (tmp_path / "out").write_text("mine")
    words = (tmp_path / "a.png", "--out", tmp_path / "out")
    fails(bench("inpaint", *words, *runs.network("central")), 1, str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "mine"


# ---- refused
def test_an_image_without_a_context_is_named(runs: Runs, tmp_path: Path, bench: Bench) -> None:
    draw_photo(0, 31, 100).save(tmp_path / "narrow.png")
    draw_photo(1, 33, 34).save(tmp_path / "least.png")
    words = (tmp_path / "narrow.png", tmp_path / "least.png", "--out", tmp_path / "out")
    line = only_said(bench("inpaint", *words, *runs.network("central")))
    assert str(tmp_path / "narrow.png") in line
    assert "31×100" in line
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["least.png"]


def test_images_that_are_not_there_are_named(runs: Runs, tmp_path: Path, bench: Bench) -> None:
    draw_photo(0).save(tmp_path / "image.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    for name in ("missing.png", "empty"):
        words = (tmp_path / "image.png", tmp_path / name, "--out", tmp_path / "out")
        fails(bench("inpaint", *words, *runs.network("central")), 2, str(tmp_path / name))
    assert not (tmp_path / "out").exists()


def test_an_encoder_that_fills_nothing_is_refused(runs: Runs, tmp_path: Path, bench: Bench) -> None:
    draw_photo(0).save(tmp_path / "image.png")
    words = (tmp_path / "image.png", "--out", tmp_path / "out")
    fails(
        bench("inpaint", *words, *runs.network("random")),
        2,
        "random",
        "pretext that does",
        "--encoder",
    )
    assert not (tmp_path / "out").exists()


def test_a_workspace_that_fills_nothing_says_what_would(finished, tmp_path, bench):
    draw_photo(0).save(tmp_path / "image.png")
    words = (tmp_path / "image.png", "--out", tmp_path / "out", "--workspace")
    for folder in (finished, tmp_path / "nowhere"):
        fails(bench("inpaint", *words, folder), 2, str(folder), "bench pretrain inpainting")
    assert not (tmp_path / "out").exists()


def test_the_default_is_the_newest_network_that_fills_holes(runs, tmp_path, bench):
    """Not the random run, which is newer, nor the central one, which is older."""
    draw_photo(0).save(tmp_path / "image.png")
    found = {}
    for kind in ("", "central", "region"):
        named = runs.network(kind) if kind else ("--workspace", str(runs.workspace))
        bench.ok("inpaint", tmp_path / "image.png", "--out", tmp_path / f"out{kind}", *named)
        found[kind] = values_of(tmp_path / f"out{kind}" / "image.png")
    np.testing.assert_array_equal(found[""], found["region"])
    assert not np.array_equal(found[""], found["central"])
