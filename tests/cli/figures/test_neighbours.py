"""Nearest content in figures: by brute force, and never the image itself."""

from pathlib import Path

import numpy as np
import torch
from skimage.feature import hog

from eval.figures import methods, neighbours
from helpers.gallery import HOLE, SIZE, column, levels, mean_colour, outside, stored
from ssl_bench import catalogue
from ssl_bench.evaluation.reference import Reference
from ssl_bench.pictures.gallery import Gallery


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
