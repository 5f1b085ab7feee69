"""CIE Lab, and colours as classes: what colorization and split-brain predict.

Lab is that of sRGB under D65 and the 2° observer, as scikit-image's rgb2lab: L in [0, 100], a and b
within ±110. Its ab plane is divided by a grid of 10, of which 313 bins are in gamut (Zhang, Isola,
Efros, "Colorful Image Colorization", ECCV 2016, arXiv 1603.08511, section 2.2).
"""

from functools import lru_cache

import torch
from torch import Tensor

from ssl_bench.counter import epoch_order
from ssl_bench.errors import DataError, counted
from ssl_bench.training.batches import Images
from ssl_bench.training.precision import full_precision

GRID = 10  # side of a bin, in units of a and b
BINS = 313
NEIGHBOURS = 5  # bins over which a colour is spread
SIGMA = 5.0  # of the Gaussian weights of these
LEVELS = 100  # classes of L
GREY = GRID / 2  # an image whose a and b stay within it has no colour
LOOKED_AT = 2000  # images whose colours are counted before the first step, every 16th pixel
EDGE = 6 / 29  # below it, Lab's cube root is a line
# Linear sRGB to XYZ (IEC 61966-2-1), with scikit-image's digits, by D65's white: row X, Y, Z.
XYZ = (
    (0.412453 / 0.95047, 0.357580 / 0.95047, 0.180423 / 0.95047),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.08883, 0.119193 / 1.08883, 0.950227 / 1.08883),
)


@full_precision
def rgb_to_lab(pixels: Tensor) -> Tensor:
    """float (B, 3, H, W) of sRGB in [0, 1] -> L, a, b in their places, of the same type."""
    linear = torch.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4)
    red, green, blue = linear.unbind(1)
    x, y, z = (_root(r * red + g * green + b * blue) for r, g, b in XYZ)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def _root(ratio: Tensor) -> Tensor:
    """Lab's f: the cube root, and its tangent near 0."""
    line = ratio / (3 * EDGE**2) + 4 / 29
    return torch.where(ratio > EDGE**3, ratio.clamp(min=EDGE**3) ** (1 / 3), line)


@lru_cache(maxsize=4)  # copied anew at every step, a GPU would be waited for each time
def ab_bins(device: torch.device) -> Tensor:
    """float32 (313, 2): a and b of the bins' centres, by rows of a.

    The paper's file of 313 points is got by this rule: a point of the grid is in gamut if the
    square of ±10 around it meets the convex hull of the colours that sRGB can show. The hull and
    the square are compared by how far they reach in 720 directions; the nearest point of the grid
    to that line is 0.05 from it. On the hull lie only colours of the cube's faces.
    """
    one = torch.linspace(0, 1, 33, dtype=torch.float64)
    cube = torch.cartesian_prod(one, one, one)
    faces = cube[((cube == 0) | (cube == 1)).any(1)]
    shown = rgb_to_lab(faces[:, :, None, None])[:, 1:, 0, 0]  # (N, 2)
    turns = torch.arange(720, dtype=torch.float64) * (torch.pi / 360)
    ways = torch.stack([turns.cos(), turns.sin()])  # (2, 720)
    reach = (shown @ ways).amax(0) + GRID * ways.abs().sum(0)
    axis = torch.arange(-110, 111, GRID, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    return grid[(grid @ ways < reach).all(1)].float().to(device)


def soft_bins(ab: Tensor) -> tuple[Tensor, Tensor]:
    """Colours (N, 2) -> their 5 nearest bins, int64 (N, 5), the nearest first, and their weights.

    Weights float (N, 5) are Gaussian in the distance, σ 5, with the sum 1 (paper, section 2.2).
    """
    bins = ab_bins(ab.device).to(ab.dtype)
    # Not by torch.cdist, whose products lose digits, and which autocast would run in 16 bit.
    squares = (ab[:, 0, None] - bins[:, 0]).square() + (ab[:, 1, None] - bins[:, 1]).square()
    nearest, places = squares.topk(NEIGHBOURS, 1, largest=False)
    return places, torch.softmax(-nearest / (2 * SIGMA**2), 1)


def has_colour(ab: Tensor) -> Tensor:
    """(B, 2, h, w) -> bool (B,)."""
    return (ab.abs() > GREY).flatten(1).any(1)


def bins_seen(store: Images, seed: int, device: torch.device) -> Tensor:
    """int64 (313,): how often each bin is the nearest, in images that the seed chooses.

    DataError if none of them has a colour: a method that learns from colours would learn nothing.
    """
    counts, coloured = torch.zeros(BINS, dtype=torch.int64, device=device), False
    chosen = epoch_order(seed, 0, len(store))[:LOOKED_AT]
    for some in chosen.split(64):
        pixels = store.batch(some.numpy())["images"][..., ::16, ::16].to(device)
        ab = rgb_to_lab(pixels.float() / 255)[:, 1:]
        counts += torch.bincount(soft_bins(by_place(ab))[0][:, 0], minlength=BINS)
        coloured |= bool(has_colour(ab).any())
    if not coloured:
        raise DataError(
            f"of {counted(len(chosen), 'training image')} looked at none has a colour, from which "
            "this pretext learns: take another one"
        )
    return counts


def lightness_levels(lightness: Tensor) -> Tensor:
    """L in [0, 100], any shape -> int64 of that shape, classes 0 to 99 of one unit each."""
    return (lightness * (LEVELS / 100)).long().clamp(0, LEVELS - 1)


def by_place(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B·h·w, C)."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)
