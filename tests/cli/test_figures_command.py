"""`bench figures`: files fit for print, and pictures that show what they say they show."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.feature import hog

from eval.figures import filters, masks, methods, neighbours, pairs, regions
from helpers.bench import Bench, Result
from helpers.photos import draw_photo
from helpers.refusals import fails
from pretext.inpainting import InpaintingConfig
from ssl_bench import catalogue
from ssl_bench.data.images import fit_square
from ssl_bench.evaluation.reference import Reference
from ssl_bench.pictures import gallery
from ssl_bench.pictures.gallery import Gallery, Grid
from ssl_bench.runtime import Runtime
from ssl_bench.training.pretext import EncoderConfig
from ssl_bench.training.pretrain import pretrain

DATA = "scenes:train=60,test=20"
SIZE, STORED = 128, 144  # px: the networks' input, and the squares that it is cropped from
HOLE = slice(39, 89)  # the central 50 px
NAMES = ["filters", "masks", "methods", "neighbours", "pairs", "regions"]
RANDOM = EncoderConfig(image_size=64, width=0.1)  # an alexnet
DPI, WIDTH, PAGE = 300, 6.9, 11.0  # the latter two in inches


def inpainting(**settings: Any) -> InpaintingConfig:
    """Starting weights of unit scale: what two steps leave of the others paints all alike."""
    tiny = {"width": 0.05, "bottleneck": 8, "steps": 2, "batch_size": 4, "init": "fan-in"}
    return InpaintingConfig(**{**tiny, **settings})


def made(workspace: Path, method: str, config: EncoderConfig, data: str = DATA) -> str:
    """A reference to what was trained."""
    record = pretrain(method, config, data, workspace, Runtime(workers=0, devices="1"))
    return f"{method}@{record.key[:12]}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A workspace and its runs: a central network, one for holes anywhere, an untrained alexnet."""
    folder = tmp_path_factory.mktemp("runs")
    networks = [
        made(folder, "inpainting", inpainting(mask=m)) for m in ("central", "random-region")
    ]
    return folder, [*networks, made(folder, "random", RANDOM)]


@pytest.fixture(scope="module")
def shown(runs: tuple[Path, list[str]]) -> Gallery:
    folder, names = runs
    references = [Reference(name, folder) for name in names]
    return Gallery(references, catalogue.dataset(DATA), count=2, workers=0)


def figures(bench: Bench, out: Path, workspace: Path, *words: object, data: str = DATA) -> Result:
    where = ("--data", data, "--out", out, "--workspace", workspace)
    return bench("figures", *words, *where, "--count", 2, "--workers", 0)


def stored(shown: Gallery, split: Any = "test") -> np.ndarray:
    """float (N, 128, 128, 3): the crops of a split, from the stored pixels."""
    margin = (STORED - SIZE) // 2
    pixels = shown.store(split, SIZE).pixels
    assert pixels.shape[1:] == (STORED, STORED, 3)
    return pixels[:, margin:-margin, margin:-margin].astype(np.float32) / 255


def mean_colour(shown: Gallery, split: Any = "test") -> np.ndarray:
    return shown.store(split, SIZE).pixels.reshape(-1, 3).mean(0) / 255


def column(pictures: Sequence[np.ndarray | None]) -> np.ndarray:
    """float (n, H, W, 3), none of them missing."""
    return np.stack([p for p in pictures if p is not None])


def rows_of(grid: Grid) -> dict[str, np.ndarray]:
    return {label: column(pictures) for label, pictures in grid.rows}


def levels(pictures: np.ndarray) -> np.ndarray:
    """What 8 bits keep of float in [0, 1]."""
    return np.rint(pictures * 255).astype(int)


def outside(pictures: np.ndarray) -> np.ndarray:
    """The pixels around the central hole: (n, pixels, 3)."""
    known = np.ones((SIZE, SIZE), bool)
    known[HOLE, HOLE] = False
    return pictures[:, known]


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


SIZES: dict[str, list[tuple[str, list[int]]]] = {  # count of images, and pictures in the rows
    "1 image of masks": [("mask", [1] * 6)],
    "2 images of masks": [("mask", [2] * 6)],
    "20 images across": [("input", [20] * 3)],
    "20 images down": [("", [6] * 20)],
    "4 encoders' filters": [("random", [1] * 4)],
}  # fmt: skip


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[Grid], tuple[Any, list[Any]]]:
    """What a grid is drawn as: the figure's size, and the box of each text in it, in inches."""
    from matplotlib import pyplot as plt

    found: list[tuple[Any, list[Any]]] = []

    def measure(figure: Any, _path: Path, _suffixes: Any) -> list[Path]:
        figure.set_dpi(DPI)  # letters are set on whole pixels
        boxes = [text.get_window_extent() for text in figure.texts if text.get_text()]
        inches = [box.transformed(figure.dpi_scale_trans.inverted()) for box in boxes]
        found.append((figure.get_size_inches(), inches))
        plt.close(figure)
        return []

    monkeypatch.setattr(gallery, "save_for_print", measure)

    def drawn(grid: Grid) -> tuple[Any, list[Any]]:
        grid.draw(Path("never written"))
        return found[-1]

    return drawn


@pytest.mark.parametrize("kind", SIZES)
def test_no_grid_is_larger_than_a_page(measured, kind):
    blank = np.ones((8, 8, 3))
    (width, height), _ = measured(
        Grid(kind, [(label, [blank] * n) for label, counts in SIZES[kind] for n in counts])
    )
    assert width == pytest.approx(WIDTH)
    assert height <= PAGE


LONG = "inpainting\nmask=random-region\nwidth=0.5"  # one of two networks for holes anywhere


def test_labels_of_rows_lie_on_the_page(measured):
    blank = np.ones((8, 8, 3))
    (width, height), boxes = measured(Grid("rows", [(LONG, [blank] * 6), (LONG, [blank] * 6)]))
    assert len(boxes) == 3
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


def test_headings_lie_beside_each_other(measured):
    """Seven columns: what `methods` shows of two networks."""
    blank = np.ones((8, 8, 3))
    (width, height), (title, *headings) = measured(Grid("columns", [("", [blank] * 7)], [LONG] * 7))
    assert title.y1 <= height
    assert headings[0].x0 >= 0
    assert headings[-1].x1 <= width
    assert all(heading.y1 <= title.y0 for heading in headings)
    assert all(one.x1 <= other.x0 for one, other in pairwise(headings))


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


# ---- the gallery
def test_which_images_are_shown_follows_from_the_seed_alone(shown: Gallery) -> None:
    picked = shown.chosen(SIZE)
    assert picked.dtype == np.int64
    assert len(set(picked.tolist())) == 2
    assert picked.min() >= 0
    assert picked.max() < 20
    other = Gallery([], catalogue.dataset(DATA), count=2, workers=0)
    assert other.chosen(SIZE).tolist() == other.chosen(64).tolist() == picked.tolist()
    more = Gallery([], catalogue.dataset(DATA), count=5, workers=0)
    assert set(picked.tolist()) < set(more.chosen(SIZE).tolist())
    seeds = {tuple(replace(other, seed=s).chosen(SIZE).tolist()) for s in range(5)}
    assert len(seeds) > 3
    np.testing.assert_array_equal(levels(column(list(stored(shown)[picked]))), levels(
        shown.images(SIZE).permute(0, 2, 3, 1).numpy() / 255
    ))  # fmt: skip


def test_labels_name_what_tells_runs_of_one_method_apart(shown: Gallery) -> None:
    for label, mask in zip(shown.labels, ("central", "random-region"), strict=False):
        method, mark = label.splitlines()
        assert method == "inpainting"
        assert mask in mark
    assert shown.labels[2] == "random"


OTHERS: dict[str, tuple[EncoderConfig, str]] = {
    "width": (EncoderConfig(image_size=64, width=0.2), DATA),
    "seed": (EncoderConfig(image_size=64, width=0.1, seed=1), DATA),
    "data": (RANDOM, "scenes:train=60,test=20,seed=1"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_no_two_runs_have_one_label(tmp_path: Path, what: str) -> None:
    names = [made(tmp_path, "random", RANDOM), made(tmp_path, "random", *OTHERS[what])]
    references = [Reference(name, tmp_path) for name in names]
    first, second = Gallery(references, catalogue.dataset(DATA), workers=0).labels
    assert first != second


def test_methods_has_a_column_for_every_network(runs, tmp_path):
    """Two seeds of one setting too."""
    names = [made(tmp_path, "inpainting", inpainting(seed=seed)) for seed in range(2)]
    references = [Reference(name, tmp_path) for name in names]
    grid = methods(Gallery(references, catalogue.dataset(DATA), count=1, workers=0))
    assert sum(heading.startswith("inpainting") for heading in grid.headings) == 2


# ---- masks
def test_masks_shows_what_is_left_and_what_is_removed(shown: Gallery) -> None:
    """Every pixel is in one of the two: the other has the mean colour, or white."""
    truth, colour = stored(shown)[shown.chosen(SIZE)], mean_colour(shown)
    grid = masks(shown)
    assert len(grid.rows) == 6
    for i, kind in enumerate(("central", "random-block", "random-region")):
        (label, left), (beside, removed) = grid.rows[2 * i : 2 * i + 2]
        assert kind in label
        assert beside == "removed"
        left, removed = column(left), column(removed)
        hole = (left != truth).any(3)
        np.testing.assert_allclose(left[hole], np.broadcast_to(colour, left[hole].shape), atol=1e-6)
        np.testing.assert_array_equal(removed[hole], truth[hole])
        np.testing.assert_array_equal(removed[~hole], np.ones_like(removed[~hole]))
        share = hole.mean((1, 2))
        assert share.min() > 0.005
        assert share.max() <= 0.25
        if kind == "central":
            assert share.tolist() == [0.25, 0.25]
            assert hole[:, 32:96, 32:96].all()
        else:
            assert not np.array_equal(hole[0], hole[1])


# ---- networks
@pytest.mark.parametrize(("maker", "which"), [(pairs, 0), (regions, 1)])
def test_inputs_outputs_and_originals(shown, maker, which):
    """By the first network that can: its own output, from an input that is the image around it."""
    truth, colour = stored(shown)[shown.chosen(SIZE)], mean_colour(shown)
    grid = maker(shown)
    rows = rows_of(grid)
    assert list(rows) == ["input", "output", "original"]
    assert shown.labels[which].replace("\n", " ") in grid.title
    np.testing.assert_array_equal(rows["original"], truth)
    hole = (rows["input"] != truth).any(3)
    np.testing.assert_allclose(
        rows["input"][hole], np.broadcast_to(colour, rows["input"][hole].shape), atol=1e-6
    )
    if which == 0:
        assert not (outside(rows["input"]) != outside(truth)).any()
        assert hole.mean((1, 2)).tolist() == [2500 / SIZE**2] * 2
    else:
        assert hole.any(0)[[0, -1]].any()  # up to an edge
        assert not np.array_equal(hole[0], hole[1])
    np.testing.assert_array_equal(rows["output"][~hole], truth[~hole])
    network: Any = shown.inpainting()[which][2]
    pixels = torch.from_numpy((truth * 255).round().astype(np.uint8)).permute(0, 3, 1, 2)
    holes = torch.from_numpy(hole)[:, None].float()
    expected = network.cpu().fill(pixels, holes).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(rows["output"], expected, atol=1e-5)
    assert np.abs(rows["output"] - truth)[hole].mean() > 0.01


def test_methods_differ_in_the_hole_only(shown: Gallery) -> None:
    truth = stored(shown)[shown.chosen(SIZE)]
    grid = methods(shown)
    assert len(grid.rows) == 2
    columns = {
        heading: column([pictures[i] for _, pictures in grid.rows])
        for i, heading in enumerate(grid.headings)
    }
    assert next(iter(columns)) == "input"
    assert [*columns][-2:] == ["Telea", "original"]
    assert set(shown.labels[:2]) < set(columns)
    assert shown.labels[2] not in columns
    assert sum(heading.startswith("nearest") for heading in columns) == 2
    np.testing.assert_array_equal(columns["original"], truth)
    for heading, pictures in columns.items():
        np.testing.assert_array_equal(outside(pictures), outside(truth))
        if heading != "original":
            assert np.abs(pictures - truth)[:, HOLE, HOLE].mean() > 0.01, heading
    filled = {levels(pictures).tobytes() for pictures in columns.values()}
    assert len(filled) >= len(columns) - 1  # two neighbours may be one image


# ---- neighbours
def hog_oracle(images: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Unit rows (N, 1764) of float images (N, 128, 128, 3) with the hole in the mean colour."""
    holed = levels(images).astype(np.uint8)
    holed[:, HOLE, HOLE] = levels(colour)
    rows = np.array([
        hog(image, 9, (16, 16), (2, 2), block_norm="L2-Hys", channel_axis=-1) for image in holed
    ])  # fmt: skip
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def nearest_by_hog(shown: Gallery) -> np.ndarray:
    """int (2, 60): training images by falling cosine to the shown ones, all holes in one colour."""
    colour = mean_colour(shown, "train")
    queries = hog_oracle(stored(shown)[shown.chosen(SIZE)], colour)
    searched = hog_oracle(stored(shown, "train"), colour)
    return np.argsort(-(queries @ searched.T), axis=1)


def test_neighbours_are_the_nearest_by_brute_force(shown: Gallery) -> None:
    expected, train = nearest_by_hog(shown), stored(shown, "train")
    grid = neighbours(shown)
    queries = stored(shown)[shown.chosen(SIZE)]
    lines = [pictures for label, pictures in grid.rows if label == "HOG"]
    assert len(lines) == 2
    for line, query, order in zip(lines, queries, expected, strict=True):
        pictures = column(line)
        np.testing.assert_array_equal(outside(pictures[:1]), outside(query[None]))
        np.testing.assert_array_equal(pictures[1:], train[order[:5]])


def test_encoders_are_searched_by_their_last_layer(shown: Gallery) -> None:
    """The hole is hidden; the alexnet sees another size and is left out."""
    grid, train = neighbours(shown), stored(shown, "train")
    labels = [f"bottleneck of\n{label}" for label in shown.labels[:2]]
    assert [label for label, _ in grid.rows] == [*labels, "HOG"] * 2
    reference = shown.encoders[1]

    def features(images: np.ndarray) -> np.ndarray:
        holed = levels(images).astype(np.uint8)
        holed[:, HOLE, HOLE] = levels(mean_colour(shown, "train"))
        x = reference.spec.normalization.apply(torch.from_numpy(holed).permute(0, 3, 1, 2))
        with torch.no_grad():
            rows = reference.encoder.cpu().eval()(x, ["bottleneck"])["bottleneck"].flatten(1)
        unit = rows.double().numpy()
        return unit / np.linalg.norm(unit, axis=1, keepdims=True)

    cosines = features(stored(shown)[shown.chosen(SIZE)]) @ features(train).T
    lines = [pictures for label, pictures in grid.rows if label == labels[1]]
    for line, row in zip(lines, cosines, strict=True):
        np.testing.assert_array_equal(column(line)[1:], train[np.argsort(-row)[:5]])


def test_methods_pastes_the_nearest_by_brute_force(shown: Gallery) -> None:
    expected, train = nearest_by_hog(shown)[:, 0], stored(shown, "train")
    grid = methods(shown)
    place = list(grid.headings).index("nearest\nHOG")
    pictures = column([row[place] for _, row in grid.rows])
    np.testing.assert_array_equal(pictures[:, HOLE, HOLE], train[expected][:, HOLE, HOLE])


# ---- filters
def test_filters_are_scaled_by_their_own_largest_weight(shown: Gallery) -> None:
    """Grey is 0; a line of white is between any two."""
    grid = filters(shown)
    tiles = [picture for _, pictures in grid.rows for picture in pictures]
    assert len(tiles) == 3
    for tile, reference in zip(tiles, shown.encoders, strict=True):
        assert tile is not None
        weights = next(w for w in reference.encoder.state_dict().values() if w.ndim == 4).numpy()
        count, _, side, _ = weights.shape
        across = (tile.shape[1] + 1) // (side + 1)
        drawn = np.zeros(tile.shape[:2], bool)
        for k, weight in enumerate(weights):
            y, x = k // across * (side + 1), k % across * (side + 1)
            drawn[y : y + side, x : x + side] = True
            expected = 0.5 + 0.5 * weight.transpose(1, 2, 0) / np.abs(weight).max()
            np.testing.assert_allclose(tile[y : y + side, x : x + side], expected, atol=1e-6)
        assert drawn.sum() == count * side * side
        assert (tile[~drawn] == 1).all()


# ---- a folder of one's own
@pytest.fixture
def flat(tmp_path: Path) -> Path:
    folder = tmp_path / "flat"
    folder.mkdir()
    for seed in range(8):
        draw_photo(seed, 170, 150).save(folder / f"{seed}.png")
    return folder


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


def test_no_image_is_its_own_neighbour(runs: tuple[Path, list[str]], flat: Path) -> None:
    """In a flat folder the queries are among the images that are searched."""
    workspace, names = runs
    references = [Reference(names[0], workspace)]
    own = Gallery(references, catalogue.dataset(f"folder:{flat}"), count=2, workers=0)
    grid = neighbours(own)
    assert len(grid.rows) == 4
    for i, (_, pictures) in enumerate(grid.rows):
        query = stored(own, "train")[own.chosen(SIZE)[i // 2]]
        found = column(pictures)[1:]
        assert len(found) == 5
        assert not (found == query).all((1, 2, 3)).any()
        assert len({picture.tobytes() for picture in found}) == 5


def test_no_hole_is_filled_with_the_image_itself(runs: tuple[Path, list[str]], flat: Path) -> None:
    """Where the searched images are the shown ones, the nearest content is another image's."""
    workspace, names = runs
    references = [Reference(names[0], workspace)]
    own = Gallery(references, catalogue.dataset(f"folder:{flat}"), count=3, workers=0)
    grid = methods(own)
    places = [i for i, heading in enumerate(grid.headings) if heading.startswith("nearest")]
    assert len(places) == 2
    for _, shown in grid.rows:
        levels_of = column(shown)
        for place in places:
            assert not np.array_equal(levels_of[place], levels_of[-1])


def test_more_images_than_there_are(runs: tuple[Path, list[str]], flat: Path) -> None:
    workspace, names = runs
    references = [Reference(names[0], workspace)]
    own = Gallery(references, catalogue.dataset(f"folder:{flat}"), count=20, workers=0)
    assert own.chosen(SIZE).tolist() == list(range(8))
    assert len(rows_of(pairs(own))["original"]) == 8
