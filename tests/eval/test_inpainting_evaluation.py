"""Errors over holes against scikit-image and by hand; fills that see no hole; the harness."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.feature import hog
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio
from torch import Tensor
from torch.nn import functional as F

from eval.fills import Hidden, feature_rows, hog_rows, mean_colour, pasted, places_of_nearest, telea
from eval.inpainting import (
    HOG,
    MEAN,
    NEAREST,
    NETWORK,
    TELEA,
    Pathak16,
    Pathak16Config,
)
from helpers.inpainting import inputs_of, small
from helpers.subjects import subject as alexnet
from pretext.context_encoder import ContextEncoderConfig
from ssl_bench import catalogue
from ssl_bench.data.normalization import Normalization
from ssl_bench.errors import UsageError
from ssl_bench.evaluation.harness import Point, Subject
from ssl_bench.evaluation.metrics.image_quality import hole_quality
from ssl_bench.runtime import Runtime
from ssl_bench.training.build import build_pretext
from ssl_bench.training.masks import square
from ssl_bench.training.pretext import Inpaints

METRICS = ("l1", "l2", "psnr", "ssim")
FREE = ["mean colour", "Telea", "nearest (HOG)"]
NORM = Normalization(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
MIDDLE = (..., slice(47, 97), slice(47, 97))  # the hole of 50 px in a stored square of 144 px


def photos(count, size=144, seed=0):
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 9, 9, generator=draw)
    return (F.interpolate(coarse, size, mode="bicubic").clamp(0, 1) * 255).byte()


def spoilt(images: Tensor) -> Tensor:
    """The same images with another content in their holes."""
    other = images.clone()
    other[MIDDLE] = images[MIDDLE] // 4 + 190
    return other


class Store:
    """Pictures from memory; their mean is their own, as that of a store, unless one is given."""

    def __init__(self, pixels: Tensor, mean: Any = None) -> None:
        self.pixels = pixels
        own = (pixels.double().mean((0, 2, 3)) / 255).tolist()
        self.normalization = Normalization(mean=mean or tuple(own), std=(0.25, 0.25, 0.25))

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, which):
        return self.pixels[which]


def store(pixels: Tensor, mean: Any = None) -> Any:
    return Store(pixels, mean)


def subject(layers=("conv5",)):
    return alexnet(NORM, *layers, width=0.25, size=128)


# ---- errors over holes
@pytest.fixture
def pairs():
    """Truth, fill and holes of four images, each with a hole of its own."""
    random = np.random.default_rng(0)
    truth = random.random((4, 48, 40, 3))
    filled = np.clip(truth + random.normal(0, 0.2, truth.shape), 0, 1)
    holes = np.zeros((4, 48, 40), bool)
    for i, hole in enumerate(holes):
        hole[3 * i : 20 + i, 10 - i : 30] = True
    return truth, filled, holes


def test_l1_l2_and_psnr_are_scikit_images_over_each_hole(pairs):
    found = hole_quality(*pairs)
    for i, (truth, filled, hole) in enumerate(zip(*pairs, strict=True)):
        a, b = truth[hole], filled[hole]
        assert found["l2"][i] == pytest.approx(100 * mean_squared_error(a, b))
        assert found["psnr"][i] == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1))
        assert found["l1"][i] == pytest.approx(100 * sum(abs(a - b).flat) / a.size)


def similarity(x, y):
    """SSIM of every pixel of one channel (Wang et al. 2004, eq. 13), windows of 1.5 px."""

    def blur(values):
        return gaussian_filter(values, 1.5, radius=5)

    mx, my, c1, c2 = blur(x), blur(y), 0.01**2, 0.03**2
    vx, vy, both = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    return (2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))


def test_ssim_is_the_published_formula_over_each_hole(pairs):
    found = hole_quality(*pairs)["ssim"]
    for i, (truth, filled, hole) in enumerate(zip(*pairs, strict=True)):
        maps = [similarity(truth[..., c], filled[..., c])[hole] for c in range(3)]
        assert found[i] == pytest.approx(np.mean(maps))


def test_a_perfect_fill_has_100_db(pairs):
    truth, _, holes = pairs
    found = hole_quality(truth, truth.copy(), holes)
    assert {name: set(found[name]) for name in METRICS} == {
        "l1": {0}, "l2": {0}, "psnr": {100}, "ssim": {1},
    }  # fmt: skip


def test_only_ssim_looks_out_of_the_hole_and_5_px_far(pairs):
    truth, filled, holes = pairs
    found = hole_quality(truth, filled, holes)
    for reach, same in ((0, False), (5, True)):
        kept = np.stack([cv2.dilate(h.astype(np.uint8), np.ones((2 * reach + 1,) * 2)) > 0
                         for h in holes])  # fmt: skip
        other = hole_quality(truth, np.where(kept[..., None], filled, 1 - filled), holes)
        assert all(np.array_equal(found[name], other[name]) for name in ("l1", "l2", "psnr"))
        assert np.allclose(found["ssim"], other["ssim"]) == same


# ---- fills
def holed(count, size=128, side=50):
    return square(count, size, side)


EVERY = np.arange(3)


def test_the_mean_colour_is_the_training_images_by_channel():
    images, holes = photos(3, 128), holed(3)
    inside = holes.bool().expand_as(images)
    filled = mean_colour(store(photos(5, seed=1), NORM.mean))(EVERY, images, holes)
    expected = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1).expand_as(images)
    assert torch.equal(filled[inside], expected[inside])
    assert torch.equal(filled[~inside], images[~inside] / 255)


def test_telea_is_opencvs_and_leaves_the_context():
    images, holes = photos(3, 128), holed(3)
    filled = telea(EVERY, images, holes)
    hole, known = holes[0, 0].byte().numpy(), holes[0, 0] == 0
    for one, image in zip(filled, images, strict=True):
        expected = cv2.inpaint(image.permute(1, 2, 0).numpy().copy(), hole, 3, cv2.INPAINT_TELEA)
        assert np.array_equal(one.permute(1, 2, 0).numpy(), expected / np.float32(255))
        assert torch.equal(one[:, known], image[:, known] / 255)


def test_what_is_pasted_is_the_neighbours_at_the_same_place():
    train, images, holes = photos(6, seed=1), photos(3, 128), holed(3)
    places = np.array([4, 0, 4])
    inside = holes.bool().expand_as(images)
    fill = pasted(store(train), 128, places)
    filled, expected = fill(EVERY, images, holes), train[places][..., 8:136, 8:136] / 255
    assert torch.equal(filled[inside], expected[inside])
    assert torch.equal(filled[~inside], images[~inside] / 255)
    assert torch.equal(fill(np.array([1]), images[1:2], holes[1:2]), filled[1:2])


def rows_of(kind, pixels):
    images, on_disk = store(pixels, NORM.mean), kind.endswith("on disk")
    hidden = Hidden(images, 128, holed(1), images)
    if kind.startswith("HOG"):
        return hog_rows(hidden, kind, on_disk=on_disk)
    tested = subject()
    return feature_rows(tested.encoder, tested.spec, "conv5", hidden, kind, on_disk=on_disk)


KINDS = ["HOG", "conv5", "HOG on disk", "conv5 on disk"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_finds_its_twin_whatever_is_in_their_holes(kind):
    train = photos(12)
    queries = spoilt(train[[7, 2, 11]])
    for pixels in (train, spoilt(train)):
        places = places_of_nearest(rows_of(kind, queries), rows_of(kind, pixels))
        assert places.tolist() == [[7], [2], [11]]


@pytest.mark.parametrize("kind", KINDS[:2])
def test_what_is_compared_does_not_depend_on_what_is_hidden(kind):
    plain = rows_of(kind, photos(4)).whole()
    assert torch.equal(rows_of(kind, spoilt(photos(4))).whole(), plain)
    assert len(plain.unique(dim=0)) == 4


def test_hog_rows_are_scikit_images_of_the_hidden_image():
    pixels = photos(2)
    hidden = pixels[..., 8:136, 8:136].clone()
    hidden[..., 39:89, 39:89] = torch.tensor([128, 102, 76]).view(3, 1, 1)  # the mean, 0 to 255
    rows = rows_of("HOG", pixels).whole().cpu()
    assert rows.shape == (2, 1764)
    for row, image in zip(rows, hidden, strict=True):
        expected = hog(
            image.permute(1, 2, 0).numpy(), orientations=9, pixels_per_cell=(16, 16),
            cells_per_block=(2, 2), block_norm="L2-Hys", channel_axis=-1,
        )  # fmt: skip
        assert np.allclose(row, expected, atol=1e-6)


# ---- the harness in process
def measured(tested, train, test, folder: Path, **settings):
    folders = {key: folder / key for key in tested.layers}
    for place in folders.values():
        place.mkdir(parents=True)
    harness = Pathak16(Pathak16Config(**settings))
    return dict(
        harness.evaluate(tested, {"train": train, "test": test}, Runtime(workers=0), folders)
    )


def noted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, ...]]:
    """Truth, fills and holes as the harness compares them."""
    seen = []

    def noting(*compared):
        seen.append(compared)
        return hole_quality(*compared)

    monkeypatch.setattr("eval.inpainting.hole_quality", noting)
    return seen


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(("mask", "keys"), [
    ("central", (MEAN, TELEA, HOG, NEAREST + "conv5")), ("random-region", (MEAN, TELEA)),
])  # fmt: skip
def test_every_fill_is_the_image_outside_its_hole(mask, keys, tmp_path, monkeypatch):
    seen, images = noted(monkeypatch), photos(5, seed=1)
    found = measured(subject(keys), store(photos(6)), store(images), tmp_path, mask=mask)
    assert tuple(found) == keys
    for truth, filled, holes in seen:
        cut = images[..., 8:136, 8:136].permute(0, 2, 3, 1).numpy()
        assert np.array_equal(truth, cut / np.float32(255))
        assert np.array_equal(filled[~holes], truth[~holes])
        assert np.array_equal(holes, seen[0][2])  # the same for all fills
    assert all(len(outcome.predictions["psnr"]) == 5 for outcome in found.values())


@pytest.mark.usefixtures("no_pictures")
def test_holes_are_filled_from_the_twin_in_train(tmp_path, monkeypatch):
    seen, train = noted(monkeypatch), photos(9)
    places = [7, 2, 5]
    keys = (HOG, NEAREST + "conv5")
    measured(subject(keys), store(train), store(spoilt(train[places])), tmp_path)
    expected = train[places][..., 8:136, 8:136].permute(0, 2, 3, 1).numpy() / np.float32(255)
    assert len(seen) == 2
    assert all(np.array_equal(filled, expected) for _, filled, _ in seen)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("mask", ["central", "random-block"])
def test_the_networks_row_is_its_own_fill(mask, tmp_path, monkeypatch):
    network, images = small(mask=mask).eval(), photos(3)
    holes = Pathak16(Pathak16Config(mask=mask)).holes(np.arange(3), 128)
    expected = network.fill(images[..., 8:136, 8:136], holes).permute(0, 2, 3, 1)
    tested = replace(subject((NETWORK,)), pretext=lambda: network)
    seen = noted(monkeypatch)
    measured(tested, store(photos(6)), store(images), tmp_path, mask=mask)
    ((_, filled, _),) = seen
    assert np.allclose(filled, expected, rtol=0, atol=0.1 / 255)  # of a grey level; GPUs round


@pytest.mark.usefixtures("no_pictures")
def test_what_is_in_the_queries_holes_is_not_looked_at(tmp_path):
    """Not even by way of the test images' mean colour."""
    given = {}
    for name, images in (("plain", photos(5, seed=1)), ("spoilt", spoilt(photos(5, seed=1)))):
        tested = subject((NEAREST + "conv5",))
        seen = inputs_of(tested.encoder)
        measured(tested, store(photos(6)), store(images), tmp_path / name)
        given[name] = torch.cat(seen)
    assert len(given["plain"]) == 11
    assert torch.equal(given["plain"], given["spoilt"])


@pytest.mark.usefixtures("no_pictures")
def test_queries_and_training_images_have_one_colour_in_their_holes(tmp_path):
    tested = subject((NEAREST + "conv5",))
    seen = inputs_of(tested.encoder)
    measured(tested, store(photos(6)), store(photos(5, seed=1) // 2), tmp_path)
    holes = torch.cat(seen)[..., 39:89, 39:89].permute(0, 2, 3, 1).reshape(-1, 3)
    assert len(holes.unique(dim=0)) == 1


@pytest.mark.parametrize("mask", ["random-block", "random-region"])
def test_drawn_holes_are_a_function_of_place_and_seed(mask):
    harness = Pathak16(Pathak16Config(mask=mask))
    whole = harness.holes(np.arange(6), 128)
    assert torch.equal(harness.holes(np.array([4, 5]), 128), whole[4:])
    assert len(whole.flatten(1).unique(dim=0)) == 6
    other = Pathak16(Pathak16Config(mask=mask, seed=1)).holes(np.arange(6), 128)
    assert not torch.equal(other, whole)


@pytest.mark.parametrize(("size", "side"), [(128, 50), (64, 25), (227, 89)])
def test_the_central_hole_is_50_of_128(size, side):
    holes = Pathak16(Pathak16Config()).holes(np.arange(2), size)
    assert holes.shape == (2, 1, size, size)
    assert holes.sum() == 2 * side**2


# ---- points
def test_the_points_of_an_encoder_that_fills_nothing():
    tested = subject(("conv1", "pool5"))
    free = [Point(name, name, free=True) for name in FREE]
    nearest = [Point(f"nearest {la}", f"nearest ({la} of x)", layer=la) for la in tested.layers]
    assert list(Pathak16(Pathak16Config()).points(tested, "x")) == [
        *free,
        *nearest,
    ]
    drawn = Pathak16(Pathak16Config(mask="random-block"))
    assert list(drawn.points(tested, "x")) == free[:2]


def lets_through(hole, tested):
    try:
        Pathak16(Pathak16Config(hole=hole)).points(tested, "x")
    except UsageError:
        return False
    return True


@pytest.mark.parametrize("size", [64, 95, 128, 227])
def test_the_largest_hole_that_is_let_through_can_be_filled(size):
    config = ContextEncoderConfig(image_size=size, width=0.1, init="fan-in", mask="central")
    network, spec = build_pretext("context-encoder", config, NORM)
    tested = Subject(network.encoder, spec, (), lambda: network)
    largest = max(hole for hole in range(1, 127) if lets_through(hole, tested))
    assert largest < 126
    holes = Pathak16(Pathak16Config(hole=largest)).holes(np.arange(1), size)
    assert isinstance(network, Inpaints)
    network.eval()
    assert network.fill(photos(1, size), holes).shape == (1, 3, size, size)


OTHERS = sorted(set(catalogue.names("eval")) - {"inpainting"})


@pytest.mark.parametrize("name", OTHERS)
def test_points_of_the_other_evaluations_are_layers(name):
    kind = catalogue.evaluation(name)
    tested = subject(("conv2", "pool5"))
    expected = [Point(la, "x", la, free=False, layer=la) for la in tested.layers]
    assert list(kind(kind.Config()).points(tested, "x")) == expected
