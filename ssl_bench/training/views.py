"""Views for self-supervision: random crops and colours, batched, on the device, per image.

Images are the loop's, uint8 (B, 3, R, R), R the side of the stored square; views are float32
(B, 3, S, S) in [0, 1], and so is what the changes of colour take and give. Each change draws from
a stream of its own, so leaving one out moves no other; `random.view(name)` draws another view of
the same images. Each is the transform of torchvision that it names, without its rounding to 8 bit.
Recipes are at the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import log
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_bench.counter import Randomness
from ssl_bench.training.colour import adjust, luma
from ssl_bench.training.resample import Taps, filtered, gaussian, triangle

TRIES = 10  # windows drawn until one fits
CACHED = 2**18  # pixels at a time on a CPU: some MB, which its cache holds between the changes


class Jitter(NamedTuple):
    """How strongly colours are changed at most: ColorJitter's four arguments."""

    brightness: float
    contrast: float
    saturation: float
    hue: float


def resized_crop(
    images: Tensor,
    size: int,
    random: Randomness,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    mirrored: float = 0.0,
) -> Tensor:
    """RandomResizedCrop: uint8 (B, 3, R, R) -> float32 (B, 3, size, size).

    The window's area is uniform in `scale`, as a share of the image's, its width by height
    log-uniform in `ratio`; bilinear, antialiased. With the probability `mirrored` it is flipped
    as `flip` would, at no cost.
    """
    windows = crop_windows(images.shape[-1], random, scale, ratio)
    return crop(images, windows, size, drawn(random, "flip", mirrored))


def crop_windows(
    side: int, random: Randomness, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """int64 (B, 4): top, left, height and width in px of a window of each side×side image."""
    u = random.uniform("resized-crop", TRIES, 2)
    area = side**2 * (scale[0] + u[..., 0] * (scale[1] - scale[0]))  # (B, TRIES)
    shape = (log(ratio[0]) + u[..., 1] * log(ratio[1] / ratio[0])).exp()
    tried = torch.stack([(area / shape).sqrt(), (area * shape).sqrt()], 2).round()
    fits = ((tried > 0) & (tried <= side)).all(2)  # (B, TRIES)
    first, fitted = fits.int().argmax(1, keepdim=True), fits.any(1, keepdim=True)
    # Scalars, not tensors of them: a copy to a GPU would wait for it.
    whole = min(side, round(side / ratio[0])), min(side, round(side * ratio[1]))
    found = [tried[..., k].gather(1, first).where(fitted, whole[k]) for k in (0, 1)]
    room = side - torch.cat(found, 1).long()  # (B, 2)
    start = (random.uniform("resized-crop place", 2) * (room + 1)).long()
    return torch.cat([start.where(fitted, room // 2), side - room], 1)


def crop(images: Tensor, windows: Tensor, size: int, mirrored: Tensor | None = None) -> Tensor:
    """Windows int64 (B, 4), as `crop_windows` gives them, of uint8 images -> float32 in [0, 1].

    Left and right change sides where `mirrored`, bool (B,).
    """
    (top, left, height, width), side = windows.float().unbind(1), images.shape[-1]
    rows, columns = triangle(top, height, side, size), triangle(left, width, side, size)
    if mirrored is not None:
        columns = Taps(*(torch.where(mirrored[:, None, None], t.flip(1), t) for t in columns))
    return filtered(images, rows, columns._replace(weights=columns.weights / 255))


def flip(images: Tensor, random: Randomness, probability: float = 0.5) -> Tensor:
    """RandomHorizontalFlip of (B, 3, H, W)."""
    return _on(drawn(random, "flip", probability), images, lambda some: some.flip(3))


def jitter(
    images: Tensor, random: Randomness, strengths: Jitter, probability: float = 0.8
) -> Tensor:
    """ColorJitter with `probability`: the four changes in a random order for each image."""
    chosen = drawn(random, "jitter", probability)
    return _on(chosen, images, adjust, *jitter_factors(random, strengths))


def jitter_factors(random: Randomness, strengths: Jitter) -> tuple[Tensor, Tensor]:
    """float32 and int64 (B, 4), the factors and the order that `colour.adjust` takes.

    A factor is uniform in [max(0, 1 − strength), 1 + strength], the hue's shift in [−hue, hue].
    """
    ranges = [(max(0, 1 - s), 1 + s) for s in strengths[:3]] + [(-strengths.hue, strengths.hue)]
    columns = zip(ranges, random.uniform("jitter factors", 4).unbind(1), strict=True)
    factors = torch.stack([low + u * (high - low) for (low, high), u in columns], 1)
    return factors, random.uniform("jitter order", 4).argsort(1)


def grey(images: Tensor, random: Randomness, probability: float = 0.2) -> Tensor:
    """RandomGrayscale: all channels become the luma."""
    chosen = drawn(random, "grey", probability)
    return _on(chosen, images, lambda some: luma(some).expand_as(some))


def blur(
    images: Tensor,
    random: Randomness,
    sigma: tuple[float, float] = (0.1, 2.0),
    probability: float = 0.5,
) -> Tensor:
    """GaussianBlur with `probability`, of sigma px, uniform.

    The kernel's side is a tenth of the image's, odd: 2 · ⌊⌊S / 10⌋ / 2⌋ + 1, 7 at 64 px and 23 at
    224 (google-research/simclr, data_util.py), but never below 3.
    """
    chosen = drawn(random, "blur", probability)
    return _on(chosen, images, blurred, blur_sigmas(random, sigma))


def blur_sigmas(random: Randomness, sigma: tuple[float, float]) -> Tensor:
    """float32 (B,), px."""
    return sigma[0] + random.uniform("blur sigma") * (sigma[1] - sigma[0])


def blurred(images: Tensor, sigmas: Tensor) -> Tensor:
    """(B, 3, S, S) with Gaussians of `sigmas` (B,) px."""
    side = images.shape[-1]
    kernel = gaussian(sigmas, max(1, side // 10 // 2), side)
    return filtered(images, kernel, kernel)


def solarise(
    images: Tensor, random: Randomness, threshold: float = 0.5, probability: float = 0.2
) -> Tensor:
    """RandomSolarize: values from `threshold` on are inverted."""
    chosen = drawn(random, "solarise", probability)
    return _on(chosen, images, lambda some: torch.where(some < threshold, some, 1 - some))


def drawn(random: Randomness, stream: str, probability: float) -> Tensor:
    """bool (B,): the images that a change falls on."""
    return random.uniform(stream) < probability


def _on(
    chosen: Tensor, images: Tensor, change: Callable[..., Tensor], *parameters: Tensor
) -> Tensor:
    """`change(images, *parameters)` where `chosen` (B,), the other images as they are.

    On a CPU only the chosen ones are computed. A GPU would have to be waited for to learn how many
    there are, which costs more than computing all of them.
    """
    if images.device.type != "cpu":
        return torch.where(chosen[:, None, None, None], change(images, *parameters), images)
    which = chosen.nonzero()[:, 0]
    if not len(which):
        return images
    made = images.clone()
    made[which] = change(images[which], *(values[which] for values in parameters))
    return made


def simclr_view(
    images: Tensor,
    size: int,
    random: Randomness,
    scale: tuple[float, float] = (0.08, 1.0),
    strength: float = 1.0,
    blurring: float = 0.5,
    solarising: float = 0.0,
) -> Tensor:
    """A view of SimCLR's (Chen et al. 2020, appendix A), SwAV's too: float32 (B, 3, size, size).

    Crop, flip, jitter, grey, blur, solarise. `strength` is the paper's s; with 0.5 and a scale
    from 0.2 it is MoCo v2's and SimSiam's. `blurring` and `solarising` are probabilities.
    """
    colours = Jitter(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
    return _view(images, size, random, scale, colours, blurring, solarising)


def byol_view(
    images: Tensor,
    size: int,
    random: Randomness,
    scale: tuple[float, float] = (0.08, 1.0),
    blurring: float = 1.0,
    solarising: float = 0.0,
) -> Tensor:
    """BYOL's first view (Grill et al. 2020, appendix B), float32 (B, 3, size, size).

    The second has `blurring` 0.1 and `solarising` 0.2. Barlow Twins', VICReg's and DINO's large
    views are the same two.
    """
    return _view(images, size, random, scale, Jitter(0.4, 0.4, 0.2, 0.1), blurring, solarising)


def _view(
    images: Tensor,
    size: int,
    random: Randomness,
    scale: tuple[float, float],
    colours: Jitter,
    blurring: float,
    solarising: float,
) -> Tensor:
    settings = scale, colours, blurring, solarising
    some = max(1, CACHED // size**2)
    if images.device.type == "cpu" and len(images) > some:  # 1.6 times as fast as all at once
        parts = zip(images.split(some), random.positions.split(some), strict=True)
        views = [_view(part, size, replace(random, positions=at), *settings) for part, at in parts]
        return torch.cat(views)
    view = resized_crop(images, size, random, scale, mirrored=0.5)
    view = jitter(view, random, colours)
    view = blur(grey(view, random), random, probability=blurring)
    return solarise(view, random, probability=solarising)


def multi_crop(
    images: Tensor, random: Randomness, recipes: Sequence[Callable[..., Tensor]]
) -> list[Tensor]:
    """One view by each recipe, with random numbers of its own: SwAV's and DINO's crops.

    A recipe is called with `images` and `random`, e.g. for two large and six small crops
    [partial(simclr_view, size=224, scale=(0.14, 1))] * 2
    + [partial(simclr_view, size=96, scale=(0.05, 0.14))] * 6.
    """
    return [recipe(images, random=random.view(str(i))) for i, recipe in enumerate(recipes)]
