"""The pictures of Pathak et al., CVPR 2016, from one's own runs.

masks        what the three masks drop (figure 3)
pairs        inputs and outputs of an inpainting network (figure 4)
methods      one hole, filled by every network and baseline (figure 6)
regions      holes of any shape, by a network trained for them (figure 7)
neighbours   training images whose context is nearest, the hole hidden from all (figure 8)
filters      the first layer's filters of each encoder

    bench figures --data folder:photos --out figures
"""

from typing import get_args

import numpy as np
import torch
from torch import Tensor

from eval.fills import Hidden, composite, feature_rows, hog_rows, places_of_nearest, telea
from eval.inpainting import filled_by
from ssl_bench.counter import Randomness
from ssl_bench.errors import UsageError
from ssl_bench.evaluation.reference import Reference
from ssl_bench.evaluation.rows import Rows
from ssl_bench.pictures.gallery import Gallery, Grid, pictures
from ssl_bench.training.augment import center_crop
from ssl_bench.training.masks import MaskKind, draw_masks, square
from ssl_bench.training.pretext import Inpaints

SIZE = 128  # px, of what needs no network
HOLE = 50 / 128
NEIGHBOURS = 5
LINES = 8  # of neighbours, on a page
Search = tuple[str, np.ndarray]  # what compared, and the places it found, int64 (count, k)


def masks(gallery: Gallery) -> Grid:
    """The holed image and the removed content, by mask."""
    images = gallery.images(SIZE)
    random = Randomness(gallery.seed, 0, torch.arange(len(images)))
    colour = _colour(gallery, SIZE)
    rows = []
    for kind in get_args(MaskKind):
        holes = draw_masks(kind, SIZE, random)
        rows.append((f"{kind}\nimage", pictures(composite(images, holes, colour))))
        rows.append(("removed", pictures(composite(images, 1 - holes, torch.ones(1, 3, 1, 1)))))
    return Grid("Masks: a quarter of the image at most", rows)


def pairs(gallery: Gallery) -> Grid:
    """Input, output and original of the first network that fills the centre."""
    label, reference, network = _first(gallery, 0)
    size = reference.spec.image_size
    images = gallery.images(size)
    holes = square(len(images), size, round(min(HOLE, network.reach) * size))
    return _before_and_after(gallery, label, reference, images, holes)


def regions(gallery: Gallery) -> Grid:
    """Input, output and original of the first network that fills holes anywhere."""
    label, reference, _ = _first(gallery, 1)
    size = reference.spec.image_size
    images = gallery.images(size)
    holes = draw_masks(
        "random-region", size, Randomness(gallery.seed, 0, torch.arange(len(images)))
    )
    return _before_and_after(gallery, label, reference, images, holes)


def methods(gallery: Gallery) -> Grid:
    """Images down, ways to fill the central hole across."""
    found = gallery.inpainting()
    _, first, _ = _first(gallery, HOLE)
    size = first.spec.image_size
    which, images = gallery.chosen(size), gallery.images(size)
    holes = square(len(images), size, round(HOLE * size))
    columns = {"input": pictures(composite(images, holes, _colour(gallery, size)))}
    for label, reference, network in found:
        if reference.spec.image_size == size and network.reach >= HOLE:
            assert reference.pretext is not None
            fill = filled_by(reference.pretext())
            columns[label] = pictures(fill(which, images, holes))
    for label, places in _searches(gallery, [first], size, 1):
        nearest = center_crop(gallery.store("train", size).images(places[:, 0]), size)
        columns[f"nearest\n{label}"] = pictures(composite(images, holes, nearest.float() / 255))
    columns["Telea"] = pictures(telea(which, images, holes))
    columns["original"] = pictures(images)
    rows = [("", [column[i] for column in columns.values()]) for i in range(len(images))]
    return Grid("One hole, filled in every way", rows, list(columns))


def neighbours(gallery: Gallery) -> Grid:
    """For some images, the training images of the nearest context, by each encoder and HOG."""
    size = gallery.encoders[0].spec.image_size if gallery.encoders else SIZE
    same = [r for r in gallery.encoders if r.spec.image_size == size]
    images, train = gallery.images(size), gallery.store("train", size)
    searches = _searches(gallery, same, size, NEIGHBOURS)
    side = round(HOLE * size)
    hidden = composite(images, square(len(images), size, side), _colour(gallery, size))
    rows = []
    for i in range(min(max(1, LINES // len(searches)), len(images))):
        for label, places in searches:
            nearest = train.images(places[i])
            found = pictures(center_crop(nearest, size))
            rows.append((label, [pictures(hidden[i : i + 1])[0], *found]))
    start = (size - side) // 2
    headings = ["query", *(str(k + 1) for k in range(NEIGHBOURS))]
    title = "Nearest contexts: the outlined square is hidden from every method"
    return Grid(title, rows, headings, (start, start, side), range(NEIGHBOURS + 1))


def filters(gallery: Gallery) -> Grid:
    """Mosaics of the first convolution's weights, each scaled by its own largest value."""
    if not gallery.encoders:
        raise UsageError("needs an encoder: `bench pretrain METHOD` makes one, --encoder names it")
    beside = len(gallery.encoders) <= 3  # else below one another, in strips
    mosaics = [_mosaic(reference, 1.2 if beside else 2.5) for reference in gallery.encoders]
    if not beside:
        rows = [(label, [tile]) for label, tile in zip(gallery.labels, mosaics, strict=True)]
        return Grid("First-layer filters", rows, gap=0.12)
    headings = [label.replace("\n", " ") for label in gallery.labels]
    return Grid("First-layer filters", [("", mosaics)], headings, gap=0.12)


# ---- parts
def _first(gallery: Gallery, reach: float) -> tuple[str, Reference, Inpaints]:
    """The first network that fills holes within this reach. UsageError without one."""
    for label, reference, network in gallery.inpainting():
        if network.reach >= reach:
            return label, reference, network
    kind = " --mask random-region" if reach == 1 else ""
    raise UsageError(
        f"needs a network that fills holes{' anywhere' if reach == 1 else ''}: "
        f"`bench pretrain inpainting{kind}` makes one, --encoder names it"
    )


def _before_and_after(
    gallery: Gallery, label: str, reference: Reference, images: Tensor, holes: Tensor
) -> Grid:
    assert reference.pretext is not None
    filled = filled_by(reference.pretext())(np.arange(len(images)), images, holes)
    holed = composite(images, holes, _colour(gallery, reference.spec.image_size))
    rows = [("input", holed), ("output", filled), ("original", images)]
    title = f"{label.replace(chr(10), ' ')} on {gallery.dataset.name}"
    return Grid(title, [(name, pictures(row)) for name, row in rows])


def _colour(gallery: Gallery, size: int) -> Tensor:
    """The mean colour of the shown images' split, (1, 3, 1, 1)."""
    mean = gallery.store(gallery.shown_split, size).normalization.mean
    return torch.tensor(mean).view(1, 3, 1, 1)


def _searches(gallery: Gallery, encoders: list[Reference], size: int, count: int) -> list[Search]:
    """The nearest training images by each encoder's last layer and by HOG, the hole hidden.

    Of images that are training images themselves, the nearest others: they are their own nearest.
    """
    hole = square(1, size, round(HOLE * size))
    own = gallery.shown_split == "train"

    def nearest(queries: Rows, rows: Rows) -> np.ndarray:
        places = places_of_nearest(queries, rows, min(count + own, len(rows)))
        if not own:
            return places
        others = places != gallery.chosen(size)[:, None]
        others[others.all(1), -1] = False  # a twin took the image's own place
        return places[others].reshape(len(places), -1)

    shown, train = (gallery.store(split, size) for split in (gallery.shown_split, "train"))
    if own and len(train) < 2:
        raise UsageError("needs a second image, to be the nearest")
    queries = Hidden(shown, size, hole, train, gallery.chosen(size))
    searched = Hidden(train, size, hole, train)
    found = []
    for reference in encoders:
        label = gallery.labels[list(gallery.encoders).index(reference)]
        layer = reference.encoder.layers[-1]
        rows = [
            feature_rows(
                reference.encoder, reference.spec, layer, images, f"{layer} of {name}",
                on_disk=False,
            )
            for images, name in ((queries, "shown images"), (searched, "train"))
        ]  # fmt: skip
        found.append((f"{layer} of\n{label}", nearest(*rows)))
    rows = [hog_rows(queries, "HOG of shown images"), hog_rows(searched, "HOG of train")]
    return [*found, ("HOG", nearest(*rows))]


def _mosaic(reference: Reference, wide: float) -> np.ndarray:
    """The first convolution's filters with lines between them, (H, W, 3).

    `wide` is the root of width over height.
    """
    weights = next(
        m.weight for m in reference.encoder.modules() if isinstance(m, torch.nn.Conv2d)
    ).detach()  # (n, 3, k, k)
    if weights.shape[1] != 3:
        raise UsageError(f"the first layer of {reference.name} does not see colours")
    scaled = 0.5 + 0.5 * weights / weights.abs().amax((1, 2, 3), keepdim=True)
    across = int(np.ceil(len(weights) ** 0.5 * wide))
    down, side = -(-len(weights) // across), weights.shape[-1] + 1
    mosaic = np.ones((down * side - 1, across * side - 1, 3), np.float32)
    for i, tile in enumerate(pictures(scaled)):
        top, left = i // across * side, i % across * side
        mosaic[top : top + side - 1, left : left + side - 1] = tile
    return mosaic
