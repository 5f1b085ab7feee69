"""`bench inpaint`: which holes are one, and where a hole is seen from."""

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from helpers.inpaint import REACHES, SIZE, Box, box_hole
from helpers.photos import draw_photo
from ssl_bench.evaluation.reference import Reference
from ssl_bench.pictures.inpaint import Filler, Window, joined_holes, windows_for
from ssl_bench.pictures.photograph import Photograph


# ---- holes
@pytest.mark.parametrize("across", [(0, 1), (1, 0), (1, 1)])
def test_holes_that_lie_close_together_are_one(across: tuple[int, int]) -> None:
    """10 of 160 px are close: squares of 5 px, 5 or 20 px apart, beside and above each other."""
    for gap, count in ((5, 1), (20, 2)):
        step = 5 + gap
        second = (40 + across[0] * step, 40 + across[1] * step, 5, 5)
        hole = box_hole(160, 200, (40, 40, 5, 5), second)
        parts = list(joined_holes(hole))
        assert len(parts) == count
        np.testing.assert_array_equal(np.sum(parts, 0), hole)


def test_a_chain_of_near_holes_is_one() -> None:
    links = [(40, left, 5, 5) for left in range(0, 160, 10)]
    assert len(list(joined_holes(box_hole(160, 160, *links)))) == 1


def chains(hole: np.ndarray) -> int:
    """How many there are, by pairs of pixels no farther apart than a 16th of the short side."""
    places = np.argwhere(hole)
    reach = max(1, min(hole.shape) // 16)
    pairs = KDTree(places).query_pairs(reach, p=np.inf, output_type="ndarray")
    linked = coo_array((np.ones(len(pairs)), pairs.T), (len(places), len(places)))
    return int(connected_components(linked, directed=False)[0])


def test_every_pixel_of_a_hole_is_in_one_part() -> None:
    random = np.random.default_rng(0)
    counts = []
    for _ in range(60):
        height, width = random.integers(10, 200, 2)
        hole = random.random((height, width)) < random.choice([0.001, 0.005, 0.02])
        hole[random.integers(height), random.integers(width)] = True
        parts = list(joined_holes(hole))
        assert all(part.any() for part in parts)
        np.testing.assert_array_equal(np.sum(parts, 0), hole)
        assert len(parts) == chains(hole)
        counts.append(len(parts))
    assert max(counts) > 10


# ---- windows
def cases(count: int) -> Iterator[tuple[np.ndarray, Box]]:
    """Images of any shape and holes of any shape at any place, with the box that holds them."""
    random = np.random.default_rng(1)
    for _ in range(count):
        height, width = random.integers(32, 400, 2)
        down, across = (random.random(2) ** 2 * 0.9 * min(height, width)).astype(int) + 1
        top, left = random.integers(height - down + 1), random.integers(width - across + 1)
        hole = box_hole(height, width, (top, left, down, across))
        if random.random() < 0.5:  # a frame: as wide, but of fewer pixels
            hole[top + 1 : top + down - 1, left + 1 : left + across - 1] = False
        yield hole, (top, left, down, across)


@pytest.mark.parametrize("reach", REACHES)
def test_windows_lie_in_the_image_and_hold_the_hole(reach: float) -> None:
    seen = 0
    for hole, _ in cases(300):
        height, width = hole.shape
        for window in windows_for(hole, SIZE, reach):
            seen += 1
            assert 0 <= window.top <= height - window.side
            assert 0 <= window.left <= width - window.side
            assert window.of(hole).shape == (window.side, window.side)
            assert window.of(hole).sum() == hole.sum()
            assert hole.sum() <= 0.25 * window.side**2
    assert seen > 300


@pytest.mark.parametrize("reach", REACHES)
def test_there_is_a_window_where_one_has_room(reach: float) -> None:
    found = []
    for hole, (_, _, down, across) in cases(300):
        room = min(hole.shape)
        has_room = max(down, across) <= reach * room and hole.sum() <= 0.25 * room**2
        assert bool(list(windows_for(hole, SIZE, reach))) == has_room
        found.append(has_room)
    assert 10 < sum(found) < 290


@pytest.mark.parametrize("reach", REACHES)
def test_a_hole_is_central_where_the_edges_let_it_be(reach: float) -> None:
    """To half a pixel: an odd hole in an even window has no middle."""
    seen = 0
    for hole, (top, left, down, across) in cases(300):
        for window in windows_for(hole, SIZE, reach):
            known = (window.side * (1 - reach)) / 2
            for start, low, length, whole in (
                (window.top, top, down, hole.shape[0]), (window.left, left, across, hole.shape[1])
            ):  # fmt: skip
                middle = low + length / 2
                if window.side / 2 <= middle <= whole - window.side / 2:
                    seen += 1
                    assert abs(start + window.side / 2 - middle) <= 0.5
                    assert low - start >= known - 0.5
                    assert start + window.side - (low + length) >= known - 0.5
    assert seen > 100


@pytest.mark.parametrize("reach", REACHES)
def test_the_first_window_is_the_network_s_size_if_it_can_be(reach: float) -> None:
    seen = {"its own": 0, "larger": 0}
    for hole, (_, _, down, across) in cases(400):
        windows = list(windows_for(hole, SIZE, reach))
        if min(hole.shape) < SIZE or not windows:
            continue
        if max(down, across) <= reach * SIZE and hole.sum() <= SIZE**2 / 4:
            seen["its own"] += 1
            assert windows[0].side == SIZE
        else:
            seen["larger"] += 1
            assert windows[0].side > SIZE
    assert min(seen.values()) > 20


@pytest.mark.parametrize("reach", REACHES)
def test_a_small_image_is_seen_whole(reach: float) -> None:
    """Where the image is smaller than the network, nothing of its context is thrown away."""
    hole = box_hole(100, 100, (48, 48, 4, 4))
    assert next(windows_for(hole, SIZE, reach)) == Window(0, 0, 100)


@pytest.mark.parametrize("side", [1, 2, 5, 9, 10, 15, 25, 40, 60])
@pytest.mark.parametrize("kind", ["central", "region"])
def test_a_hole_with_its_own_width_known_around_it_is_never_refused(runs, side, kind):
    """A window of three times the hole is enough, also for 50 of 128 px: 39 %."""
    filler = Filler(Reference(getattr(runs, kind), runs.workspace))
    margin = side + 3  # and the pixels that a resized hole gains
    height, width = max(150, 2 * margin + side), 210
    photograph = Photograph(np.asarray(draw_photo(0, width, height)))
    lowest, rightmost = height - margin - side, width - margin - side
    for top in (margin, (margin + lowest) // 2, lowest):
        for left in (margin, (margin + rightmost) // 2, rightmost):
            hole = box_hole(height, width, (top, left, side, side))
            filled, _ = filler.filled(photograph, hole)
            assert not np.array_equal(filled.values[hole], photograph.values[hole])
            np.testing.assert_array_equal(filled.values[~hole], photograph.values[~hole])
