"""Fills without a network of their own: what an inpainting network has to beat.

Mean colour, the nearest training image (Hays and Efros's idea, as in table 1 of Pathak et al. 2016,
by HOG or by an encoder's features), and OpenCV's Telea, which a user would try first. The hole is
hidden from all of them: neighbours are compared with the same hole filled with the mean colour in
the query and in every training image.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from eval.knn import nearest
from ssl_bench.data.store.squares import ImageStore
from ssl_bench.encoders.build import EncoderSpec
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.errors import extra
from ssl_bench.evaluation.features import extract
from ssl_bench.evaluation.rows import Rows
from ssl_bench.progress import progress
from ssl_bench.training.augment import center_crop

# Indices int64 (B,) into the test images, their pixels uint8 (B, 3, S, S) and holes (B, 1, S, S)
# -> filled images, float (B, 3, S, S) in [0, 1], which are the images outside the holes.
HoleFill = Callable[[np.ndarray, Tensor, Tensor], Tensor]
RADIUS = 3  # px around a pixel that Telea looks at, as in OpenCV's examples
CELLS = 8  # of HOG, across the image: 16 px at 128
ORIENTATIONS = 9


class Hidden:
    """The images of a store, cropped to the network's size, with one hole in all of them.

    The hole has the mean colour of `train`, whichever images these are; `which` of them, or all.
    """

    def __init__(
        self,
        store: ImageStore,
        size: int,
        hole: Tensor,
        train: ImageStore,
        which: np.ndarray | None = None,
    ) -> None:
        self.store, self.size, self.hole = store, size, hole.bool().cpu()  # (1, 1, S, S)
        self.which = which  # None: all
        colour = torch.tensor(train.normalization.mean).view(1, 3, 1, 1) * 255
        self.colour = colour.round().to(torch.uint8)

    def __len__(self) -> int:
        return len(self.store) if self.which is None else len(self.which)

    def images(self, which: slice | np.ndarray) -> Tensor:
        """uint8 (B, 3, S, S)."""
        places = which if self.which is None else self.which[which]
        crops = center_crop(self.store.images(places), self.size)
        return torch.where(self.hole, self.colour, crops)


def composite(images: Tensor, holes: Tensor, content: Tensor) -> Tensor:
    """uint8 images with `content`, float in [0, 1], in their holes."""
    return torch.where(holes.bool(), content, images.float() / 255)


def mean_colour(train: ImageStore) -> HoleFill:
    """The mean of all training pixels."""
    colour = torch.tensor(train.normalization.mean).view(1, 3, 1, 1)
    return lambda _which, images, holes: composite(images, holes, colour)


def telea(_which: np.ndarray, images: Tensor, holes: Tensor) -> Tensor:
    """Telea, "An image inpainting technique based on the fast marching method", JGT 9, 2004."""
    with extra("inpaint"):
        import cv2

    filled = [
        cv2.inpaint(image, hole, RADIUS, cv2.INPAINT_TELEA)
        for image, hole in zip(
            images.permute(0, 2, 3, 1).contiguous().numpy(),
            holes[:, 0].to(torch.uint8).numpy(),
            strict=True,
        )
    ]
    return composite(images, holes, torch.from_numpy(np.stack(filled)).permute(0, 3, 1, 2) / 255)


# ---- nearest neighbours


def places_of_nearest(queries: Rows, rows: Rows, count: int = 1) -> np.ndarray:
    """int64 (N, count): the rows of largest cosine to each query, the nearest first."""
    found = [
        nearest(F.normalize(block), rows, count)[1].cpu().numpy() for _, block in queries.blocks()
    ]
    return np.concatenate(found)


def pasted(train: ImageStore, size: int, places: np.ndarray) -> HoleFill:
    """The hole's content from one training image each, at the same place; `places` int64 (N,)."""

    def fill(which: np.ndarray, images: Tensor, holes: Tensor) -> Tensor:
        neighbours = center_crop(train.images(places[which]), size)
        return composite(images, holes, neighbours.float() / 255)

    return fill


def hog_rows(images: Hidden, title: str, *, on_disk: bool = False) -> Rows:
    """Histograms of oriented gradients (Dalal and Triggs, CVPR 2005): float32 (N, D).

    scikit-image's, with 8×8 cells, blocks of 2×2 and 9 orientations: 1,764 numbers.
    """
    with extra("inpaint"):
        from skimage.feature import hog

    cell = images.size // CELLS
    rows: Rows | None = None
    for i in progress(range(len(images)), title, len(images)):
        pixels = images.images(np.array([i]))[0].permute(1, 2, 0).numpy()
        found = hog(
            pixels, ORIENTATIONS, (cell, cell), (2, 2), block_norm="L2-Hys", channel_axis=-1
        )
        if rows is None:
            rows = Rows(len(images), len(found), on_disk=on_disk)
        rows.write(i, torch.from_numpy(found)[None].float())
    assert rows is not None
    return rows


def feature_rows(
    encoder: Encoder, spec: EncoderSpec, layer: str, images: Hidden, title: str, *, on_disk: bool
) -> Rows:
    """An encoder's features of images with a hole, pooled to 9,600 numbers at most."""
    found = extract(encoder, spec, images, {layer: [9600]}, title, on_disk=on_disk)
    return found[layer, 9600]
