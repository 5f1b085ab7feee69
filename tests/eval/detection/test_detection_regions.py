"""Detection: where regions lie, and the anchors of learnt proposals."""

from copy import deepcopy
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from eval.detection import FastRCNN
from eval.networks.fast_rcnn import Detector, framed, mirrored_boxes, new_rpn
from eval.networks.geometry import Geometry
from eval.networks.regions import RoIPool
from helpers.detection import PLAIN, QUICK, heads_of, subject
from ssl_bench import catalogue
from ssl_bench.counter import Randomness
from ssl_bench.data.normalization import Normalization
from ssl_bench.data.store.whole import open_whole
from ssl_bench.training.pretext import Step


# ---- where regions lie
def averaging(module, inputs, _):
    return F.avg_pool2d(inputs[0], module.kernel_size, module.stride, 0, module.ceil_mode)


def centre_of(encoder, layer, margin, unit, width):
    """Where a unit looks: the middle of its gradient, if all kernels are flat."""
    flat: Any = deepcopy(encoder)
    for module in flat.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            module.bias = None
        elif isinstance(module, nn.MaxPool2d):
            module.register_forward_hook(averaging)
    image = torch.ones(1, 3, 64, width, requires_grad=True)
    frame = (margin, margin, margin, margin)
    maps = flat(F.pad(image, frame), [layer])[layer]
    (slope,) = torch.autograd.grad(maps[0, :, maps.shape[2] // 2, unit].sum(), image)
    mass = slope.sum((0, 1, 2)).double()
    return float((mass * torch.arange(width)).sum() / mass.sum())


@pytest.mark.parametrize(
    ("layer", "stride", "margin"), [("conv1", 4, 5), ("conv2", 8, 9), ("conv5", 16, 17)]
)
def test_unit_i_looks_at_pixel_i_times_the_stride(encoder, layer, stride, margin):
    """conv1 and the pooling have no padding, so that conv5 begins at pixel 17: the margin."""
    pool = RoIPool(Geometry(encoder, layer))
    assert (pool.stride, pool.margin, pool.first) == (stride, margin, 0)
    for unit in (20, 21):
        assert centre_of(encoder, layer, margin, unit, 800) == pytest.approx(unit * stride, abs=0.1)


def test_a_region_begins_and_ends_on_its_outer_pixels_units(encoder):
    """As published: the rounded 16ths of the first and the last pixel, both inclusive."""
    pool = RoIPool(Geometry(encoder, "conv5"))
    boxes = torch.tensor([[0, 0, 1, 1], [32, 48, 65, 81], [0, 7, 9, 10], [8, 0, 100, 227]])
    units = pool.units(boxes.float())
    published = (boxes - torch.tensor([0, 0, 1, 1])) / 16
    assert torch.equal(units, published)
    maps = torch.zeros(1, 1, 10, 10)
    maps[0, 0, 3:6, 2:5] = 1  # rows 48/16 … 80/16, columns 32/16 … 64/16
    assert bool((pool({"map": maps}, [boxes[1:2].float()], None) == 1).all())
    maps = 1 - maps
    assert bool((pool({"map": maps}, [boxes[1:2].float()], None) == 0).all())


@pytest.mark.parametrize("size", [(96, 128), (100, 101), (227, 227), (64, 300), (131, 250)])
def test_the_region_of_the_whole_image_pools_the_whole_map(encoder, size):
    """Every unit that lies on the image is in its pooled map; the few behind its edge are not."""
    pool = RoIPool(Geometry(encoder, "conv5"))
    height, width = size
    image = torch.zeros(1, 3, height + 2 * pool.margin, width + 2 * pool.margin)
    h, w = encoder(image, ["conv5"])["conv5"].shape[2:]
    lit = torch.eye(h * w).view(h * w, 1, h, w)  # one unit each
    whole = torch.tensor([[0.0, 0, width, height]])
    pooled = pool({"map": lit}, [whole] * (h * w), None)
    seen = pooled.amax((1, 2, 3)).view(h, w)
    rows, columns = round((height - 1) / 16) + 1, round((width - 1) / 16) + 1
    assert rows <= h <= rows + 1
    assert columns <= w <= columns + 1
    assert bool((seen[:rows, :columns] == 1).all())
    assert bool((seen[rows:] == 0).all())
    assert bool((seen[:, columns:] == 0).all())


def test_the_smallest_boxes_in_the_corners_have_a_unit(encoder):
    pool = RoIPool(Geometry(encoder, "conv5"))
    corners = torch.tensor([[0.0, 0, 1, 1], [226, 226, 227, 227], [0, 226, 0.5, 227]])
    pooled = pool({"map": torch.ones(1, 3, 15, 15)}, [corners], None)
    assert bool((pooled == 1).all())


def bright_box(image):
    """First and last row and column, exclusive, where a float image (3, H, W) is above a half."""
    rows, columns = (image.amax(0) > 0.5).nonzero().T
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


@pytest.mark.parametrize("turned", [False, True])
def test_pixels_and_boxes_are_mirrored_alike_within_the_images_own_width(turned):
    pixels = torch.zeros(2, 3, 40, 60, dtype=torch.uint8)
    box = torch.tensor([[5.0, 3, 20, 30]])
    pixels[1, :, 3:30, 5:20] = 255
    sizes = [(40, 60), (35, 50)]
    inputs = framed(pixels, sizes, [False, turned], PLAIN, 17)
    assert inputs.shape == (2, 3, 74, 94)
    moved = mirrored_boxes(box, 50) if turned else box
    assert bright_box(inputs[1]) == [17 + int(side) for side in moved[0]]
    assert torch.equal(mirrored_boxes(mirrored_boxes(box, 50), 50), box)


class Noting:
    """In the place of a detector: what it is given."""

    pooling = SimpleNamespace(margin=0)

    def __call__(self, inputs, sizes, regions, targets, draw):
        self.inputs, self.regions = inputs, regions
        self.boxes = [target["boxes"] for target in targets]
        return {}


def test_objects_and_regions_are_mirrored_with_their_images(stores):
    train, seen, places = stores[0], Noting(), torch.arange(9)
    images, step = (
        train.images(places.numpy()),
        Step(0, places, Randomness(0, 0, places), torch.Tensor.backward),
    )
    boxes = [train.objects(i).boxes for i in places.tolist()]
    truth = {"sizes": train.sizes.tolist(), "objects": [train.objects(i) for i in range(9)]}
    detector, spec = cast(Any, seen), subject(train).spec
    FastRCNN(QUICK).loss(detector, images, truth | {"proposals": boxes}, step, spec)
    turned = (seen.inputs != spec.normalization.apply(images)).flatten(1).any(1).tolist()
    assert 0 < sum(turned) < 9
    for i, box in enumerate(map(torch.tensor, boxes)):
        expected = mirrored_boxes(box, train.sizes[i, 1]) if turned[i] else box
        assert torch.allclose(seen.boxes[i], expected)
        assert torch.allclose(seen.regions[i], expected)


def test_what_is_no_image_is_the_mean_colour():
    pixels = torch.full((2, 3, 40, 60), 255, dtype=torch.uint8)
    gray = Normalization(mean=(0.25, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    inputs = framed(pixels, [(40, 60), (30, 20)], [True, True], gray, 5)
    inside = torch.zeros(2, 50, 70, dtype=torch.bool)
    inside[0, 5:45, 5:65] = True
    inside[1, 5:35, 5:25] = True
    assert torch.equal(inputs[:, 0] != 0, inside)
    assert inputs[:, 0][inside].tolist() == [1.5] * int(inside.sum())


def test_boxes_grow_with_their_images(stores):
    """A scene has no size of its own: drawn twice as large, its boxes are twice as large."""
    data = catalogue.dataset("scenes:train=9,test=5")
    large = open_whole(data, "train", "detection", 192, 256, workers=0)
    for i in range(9):
        small, double = stores[0].objects(i), large.objects(i)
        assert double.labels.tolist() == small.labels.tolist()
        assert np.abs(double.resized(0.5, 0.5).boxes - small.boxes).max() <= 1.5
        assert np.allclose(double.resized(0.3, 0.7).resized(1 / 0.3, 1 / 0.7).boxes, double.boxes)
        assert np.allclose(double.flipped(192).flipped(192).boxes, double.boxes)


def test_box_offsets_round_trip(encoder):
    coder = heads_of(encoder).box_coder
    random = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 50, 2, generator=random) * 100
    boxes, regions = torch.cat([corners, corners + 5 + corners.flip(0)], 2)
    (offsets,) = coder.encode([boxes], [regions])
    assert coder.decode(offsets, [regions])[:, 0] == pytest.approx(boxes, abs=1e-3)


# ---- learnt proposals
def test_anchors_stand_on_the_units_and_grow_with_the_image(encoder):
    rpn = new_rpn(4, 300, 0)
    network = Detector(encoder, "conv5", heads_of(encoder), rpn)
    seen = []
    rpn.anchor_generator.register_forward_hook(lambda m, x, anchors: seen.append(anchors[0]))
    channels = Geometry(encoder, "conv5").channels
    network.rpn = rpn = new_rpn(channels, 300, 0)
    rpn.anchor_generator.register_forward_hook(lambda m, x, anchors: seen.append(anchors[0]))
    network.eval()
    with torch.no_grad():
        network(torch.zeros(1, 3, 134, 234), [(100, 200)], None)
    boxes = seen[-1].view(-1, 9, 4)
    middles = (boxes[..., :2] + boxes[..., 2:]) / 2
    h, w = encoder(torch.zeros(1, 3, 134, 234), ["conv5"])["conv5"].shape[2:]
    assert len(boxes) == h * w
    grid = torch.stack(torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy"), -1)
    assert torch.equal(middles[:, 4], 16.0 * grid.view(-1, 2))
    areas = (boxes[0, :, 2:] - boxes[0, :, :2]).prod(-1).sqrt()
    assert areas.view(3, 3).mean(0) == pytest.approx(torch.tensor([64.0, 128, 256]), rel=0.02)
