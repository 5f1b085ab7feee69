"""Views against torchvision's transforms with the same parameters, and what is drawn for them."""

from collections import Counter
from functools import partial

import pytest
import torch
from scipy import stats
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from helpers.stub_device import STUB, stub_device
from ssl_bench.counter import Randomness, generator
from ssl_bench.training import views
from ssl_bench.training.colour import CONTRAST, SATURATION, adjust
from ssl_bench.training.views import Jitter

LEVEL = 1 / 255
STRONG = Jitter(0.8, 0.8, 0.8, 0.5)
ADJUSTMENTS = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)


def random_of(count, step=0):
    return Randomness(5, step, torch.arange(count))


def squares(count=16, side=40):
    """uint8, of all colours, some pixels without any."""
    draw = generator("squares", count, side)
    made = torch.randint(256, (count, 3, side, side), generator=draw)
    made[..., :4] = made[:, :1, :, :4]
    made[:, :, :2], made[:, :, 2:4] = 0, 255
    return made.byte()


def floats(count=16, side=40):
    return squares(count, side) / 255


@pytest.mark.parametrize("size", [12, 24, 64])
def test_crops_are_torchvisions(size):
    images = squares()
    windows = views.crop_windows(40, random_of(16), (0.08, 1.0), (3 / 4, 4 / 3))
    crops = views.crop(images, windows, size)
    for image, place, found in zip(images, windows.tolist(), crops, strict=True):
        top, left, height, width = place
        window = top, left, height, width, [size, size]
        exact = tv.resized_crop(image / 255, *window)  # antialias is the default
        assert (found - exact).abs().max() < 1e-5
        picture = tv.resized_crop(tv.to_pil_image(image), *window)
        assert (found * 255 - tv.pil_to_tensor(picture)).abs().max() <= 1.01


def test_a_crop_of_the_whole_is_the_image():
    images = squares()
    whole = torch.tensor([[0, 0, 40, 40]]).expand(16, 4)
    assert (views.crop(images, whole, 40) - images / 255).abs().max() < 1e-6


def test_a_mirrored_crop_is_a_crop_and_a_flip():
    images, random = squares(), random_of(16)
    found = views.resized_crop(images, 24, random, mirrored=0.5)
    assert (found - views.flip(views.resized_crop(images, 24, random), random)).abs().max() < 1e-6


def test_windows_are_distributed_as_torchvisions():
    count, side = 4000, 72
    found = views.crop_windows(side, random_of(count), (0.08, 1.0), (3 / 4, 4 / 3))
    transform = v2.RandomResizedCrop(64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [transform.make_params([torch.empty(3, side, side)]) for _ in range(count)]
    for column, name in enumerate(("top", "left", "height", "width")):
        theirs = [window[name] for window in drawn]
        assert stats.kstest(found[:, column].numpy(), theirs).pvalue > 1e-3, name
    assert (found[:, :2] + found[:, 2:] <= side).all()


@pytest.mark.parametrize("ratio", [(3.0, 4.0), (0.2, 0.3)])
def test_where_no_window_fits_it_is_torchvisions_in_the_centre(ratio):
    transform = v2.RandomResizedCrop(64, scale=(1, 1), ratio=ratio)
    theirs = transform.make_params([torch.empty(3, 72, 72)])
    found = views.crop_windows(72, random_of(8), (1, 1), ratio)
    wanted = [theirs[name] for name in ("top", "left", "height", "width")]
    assert found.tolist() == [wanted] * 8


def test_colours_in_any_order_are_torchvisions():
    images, random = floats(48), random_of(48)
    factors, order = views.jitter_factors(random, STRONG)
    adjusted = adjust(images, factors, order)
    for image, values, changes, found in zip(images, factors, order, adjusted, strict=True):
        for change in changes.tolist():
            image = ADJUSTMENTS[change](image, float(values[change]))
        assert (found - image).abs().max() < 2e-5


@pytest.mark.parametrize("change", range(4))
def test_each_change_of_colour_is_what_8_bit_rounds(change):
    """Contrast and saturation floor the grey, too, of which they add |1 − factor|."""
    images, (factors, _) = squares(), views.jitter_factors(random_of(16), STRONG)
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(16, 1)
    neutral[:, change] = factors[:, change]
    adjusted = adjust(images / 255, neutral, torch.arange(4).expand(16, 4))
    for image, values, found in zip(images, factors, adjusted, strict=True):
        theirs = ADJUSTMENTS[change](image, float(values[change]))
        floored = abs(1 - float(values[change])) if change in (CONTRAST, SATURATION) else 0
        assert (found - theirs / 255).abs().max() <= (1 + floored) * LEVEL + 1e-5
    assert adjusted.min() >= 0
    assert adjusted.max() <= 1


@pytest.mark.parametrize("side", [20, 64, 70])
def test_blur_is_torchvisions(side):
    images, sigmas = floats(8, side), views.blur_sigmas(random_of(8), (0.1, 2.0))
    kernel = {20: 3, 64: 7, 70: 7}[side]
    for image, sigma, found in zip(
        images, sigmas.tolist(), views.blurred(images, sigmas), strict=True
    ):
        assert (found - tv.gaussian_blur(image, [kernel] * 2, [sigma] * 2)).abs().max() < 1e-5


def test_flip_grey_and_solarise_are_torchvisions():
    images, random = floats(), random_of(16)
    assert torch.equal(views.flip(images, random, 1), tv.horizontal_flip(images))
    found = views.grey(images, random, 1)
    assert (found - tv.rgb_to_grayscale(images, 3)).abs().max() < 1e-6
    found = views.solarise(images, random, 0.5, 1)
    assert torch.allclose(found, tv.solarize(squares(), 128) / 255)


CHANGES = {
    "flip": views.flip,
    "jitter": partial(views.jitter, strengths=STRONG),
    "grey": views.grey,
    "blur": views.blur,
    "solarise": views.solarise,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_falls_on_the_share_of_images_that_is_asked_for(name):
    change, images = CHANGES[name], floats(400, 6)
    before = images.clone()
    assert torch.equal(change(images, random=random_of(400), probability=0), images)
    for probability in (0.2, 0.8, 1.0):
        made = change(images, random=random_of(400), probability=probability)
        moved = int((made != images).flatten(1).any(1).sum())
        assert stats.binomtest(moved, 400, probability).pvalue > 1e-3
    assert torch.equal(images, before)


def test_jitter_draws_factors_and_orders_evenly():
    factors, order = views.jitter_factors(random_of(4800), Jitter(0.4, 1.2, 0.2, 0.1))
    for column, low, high in zip(
        factors.unbind(1), (0.6, 0, 0.8, -0.1), (1.4, 2.2, 1.2, 0.1), strict=True
    ):
        spread = stats.uniform(low, high - low)
        assert stats.kstest(column.numpy(), spread.cdf).pvalue > 1e-3
    orders = Counter(map(tuple, order.tolist()))
    assert len(orders) == 24
    assert stats.chisquare(list(orders.values())).pvalue > 1e-3


RECIPES = [
    partial(views.simclr_view, size=24, scale=(0.14, 1.0), solarising=0.5),
    partial(views.byol_view, size=24),
    partial(views.byol_view, size=16, scale=(0.05, 0.14), blurring=0.5),
    partial(views.byol_view, size=16, scale=(0.05, 0.14), blurring=0.5),
]


def test_a_view_does_not_depend_on_the_share_of_the_batch():
    images = squares(70)
    whole = views.multi_crop(images, random_of(70, 3), RECIPES)
    for part in (range(1), range(1, 40), range(40, 70)):
        random = Randomness(5, 3, torch.tensor(part))
        for all_, some in zip(whole, views.multi_crop(images[part], random, RECIPES), strict=True):
            assert (all_[part] - some).abs().max() < 1e-5


def test_views_are_of_the_sizes_asked_for_and_unlike_each_other():
    made = views.multi_crop(squares(), random_of(16), RECIPES)
    assert [view.shape[1:] for view in made] == [(3, s, s) for s in (24, 24, 16, 16)]
    for view in made:
        assert view.dtype == torch.float32
        assert view.min() >= 0
        assert view.max() <= 1
    for first, second in (made[:2], made[2:]):
        assert ((first - second).abs().mean((1, 2, 3)) > 0.02).all()


@pytest.mark.parametrize("images_at_a_time", [16, 5])
def test_a_recipe_is_its_changes_one_after_the_other(images_at_a_time, monkeypatch):
    monkeypatch.setattr(views, "CACHED", images_at_a_time * 24**2)
    images, random = squares(), random_of(16)
    view = views.flip(views.resized_crop(images, 24, random), random)
    view = views.jitter(view, random, Jitter(0.4, 0.4, 0.4, 0.1))
    view = views.blur(views.grey(view, random), random)
    view = views.solarise(view, random, probability=0.3)
    found = views.simclr_view(images, 24, random, strength=0.5, solarising=0.3)
    assert (found - view).abs().max() < 1e-5


def test_autocast_does_not_round_them():
    images, random = squares(), random_of(16)
    exact = views.multi_crop(images, random, RECIPES)
    with torch.autocast("cpu", torch.bfloat16):
        for one, other in zip(exact, views.multi_crop(images, random, RECIPES), strict=True):
            assert torch.equal(one, other)


def test_another_device_makes_the_same_views():
    images, random = squares(), random_of(16)
    here = views.multi_crop(images, random, RECIPES)
    with stub_device():
        random = Randomness(5, 0, torch.arange(16).to(STUB))
        there = views.multi_crop(images.to(STUB), random, RECIPES)
        for one, other in zip(here, there, strict=True):
            assert other.device == STUB
            assert (one - other.cpu()).abs().max() < 1e-5
