"""Colours of a batch, changed as torchvision.transforms.v2.functional does, but per image.

Images are float32 (B, 3, H, W) in [0, 1]. torchvision rounds images of 8 bit after each change;
nothing is rounded here.
"""

from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # columns of factors, entries of orders


def luma(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W): ITU-R BT.601, with torchvision's digits."""
    red, green, blue = images.split(1, 1)
    return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def adjust(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, in each image's own order.

    `factors` float32 (B, 4) are torchvision's, the hue's in turns; `order` int64 (B, 4) names the
    change at each of the four places.
    """
    images, place = images.clone(), (order == HUE).int().argmax(1)
    # The hue is the dear one, so it is changed once for all images: between what comes before it
    # and what comes after it in each one's order. No device has to be asked which these are.
    for k in range(3):
        _blend(images, factors, order[:, k], k < place)
    _shift_hue(images, factors[:, HUE])
    for k in range(1, 4):
        _blend(images, factors, order[:, k], k > place)
    return images


# In place: on a CPU most of the time went into pages of memory for what lies in between.


def _blend(images: Tensor, factors: Tensor, change: Tensor, active: Tensor) -> None:
    """f · x + (1 − f) · base, clamped, for the images that are `active` (B,).

    The base is black for brightness, the mean luma for contrast, the pixel's for saturation.
    """
    factor = factors.gather(1, change[:, None])[:, 0].where(active, 1)
    parts = [(change == of) * (1 - factor) for of in (SATURATION, CONTRAST)]
    of_grey, of_mean = (part[:, None, None, None] for part in parts)
    base = luma(images)
    of_mean = of_mean * base.mean((2, 3), keepdim=True)
    images.mul_(factor[:, None, None, None]).add_(base.mul_(of_grey).add_(of_mean)).clamp_(0, 1)


def _shift_hue(images: Tensor, turns: Tensor) -> None:
    """Every pixel's hue turned by `turns` (B,), in [−1/2, 1/2], at HSV's saturation and value.

    So a pixel's largest and smallest channel stay, and only which channels these are, and where
    the third lies between them, changes. In A. R. Smith's hexagon ("Color gamut transform pairs",
    SIGGRAPH 1978) a hue h in [0, 6) gives red clamp(|h − 3| − 1) of the way from the smallest to
    the largest, green clamp(2 − |h − 2|), blue clamp(2 − |h − 4|). The way back needs no cases:
    |h| from red is 1 + (green + blue − red − smallest) / (largest − smallest), in [0, 3].
    """
    red, green, blue = images.split(1, 1)
    smallest = images.amin(1, keepdim=True)
    spread = images.amax(1, keepdim=True).sub_(smallest)
    hue = (green + blue).sub_(red).sub_(smallest)
    hue.div_(spread.clamp_(min=1e-12)).add_(1)  # a grey pixel has no hue: any will do
    hue.copysign_(green.sub_(blue)).div_(6)  # from here on the channels may be overwritten
    hue.add_(turns[:, None, None, None] + 1).frac_().mul_(6)  # + 1: above zero
    for channel, centre, edge, sign in ((red, 3, 1, 1), (green, 2, 2, -1), (blue, 4, 2, -1)):
        channel.copy_(hue).sub_(centre).abs_().sub_(edge).mul_(sign).clamp_(0, 1)
        channel.mul_(spread).add_(smallest)
