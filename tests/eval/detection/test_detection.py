"""Fast R-CNN: boxes on the right pixels and units, samples by counter, what learns, the command."""

import json
import math
import signal
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from eval import detection
from eval.detection import FastRCNN, FastRCNNConfig, detect, padded, proposal_recall, truth_of
from eval.fast_rcnn import Detector, Learner, framed, mirrored_boxes, new_heads, new_rpn
from eval.fcn import Geometry
from eval.proposals import Proposals, open_proposals
from eval.regions import BandMatcher, CounterSampler, RoIPool
from helpers.refusals import SCENES, TOY, fails, only
from ssl_bench import catalogue
from ssl_bench.counter import Randomness
from ssl_bench.data.whole import open_whole
from ssl_bench.encoders import EncoderSpec, Normalization, build_encoder, initialize, weights_digest
from ssl_bench.errors import DataError, UsageError
from ssl_bench.runtime import Runtime
from ssl_bench.task import Subject
from ssl_bench.train import Interrupted, _factor

QUICK = FastRCNNConfig(steps=5, batch_size=2, short=96, longest=128, head=32, rois=32)
LEARNT = QUICK.model_copy(update={"proposals": "rpn"})
DETECT = ("--steps", "3", "--short", "96", "--longest", "128", "--head", "32", "--rois", "16")
PLAIN = Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def stores():
    data = catalogue.dataset("scenes:train=9,test=5")
    return [open_whole(data, split, "detection", 96, 128, workers=0) for split in ("train", "test")]


def spec_of(store, width=0.1, arch="alexnet"):
    return EncoderSpec(arch=arch, image_size=64, width=width, normalization=store.normalization)


def subject(store, width=0.1, arch="alexnet", layer="conv5"):
    spec = spec_of(store, width, arch)
    encoder = build_encoder(spec)
    initialize(encoder, "fan-in", 0, "encoder")
    return Subject(encoder, spec, (layer,))


def detected(config, tested, stores, folder: Path, **runtime):
    folder.mkdir(exist_ok=True)
    (layer,) = tested.layers
    settings = Runtime(**{"workers": 0, **runtime})
    train, test = stores
    return dict(FastRCNN(config).evaluate(tested, train, test, settings, {layer: folder}))[layer]


def kept(monkeypatch):
    """The networks that are made from here on."""
    made, plain = [], FastRCNN._network

    def noting(self, *arguments):
        made.append(plain(self, *arguments))
        return made[-1]

    monkeypatch.setattr(FastRCNN, "_network", noting)
    return made


@pytest.fixture(scope="module")
def encoder():
    spec = EncoderSpec(arch="alexnet", image_size=64, width=0.05, normalization=PLAIN)
    return build_encoder(spec).eval()


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


# ---- samples and losses


def heads_of(encoder, classes=3, rois=32, lowest=0.1):
    heads: Any = new_heads(Geometry(encoder, "conv5"), 16, classes, rois, lowest, 0)
    heads.fg_bg_sampler.draw = draw_of(0)
    return heads


def draw_of(seed):
    random = Randomness(seed, 0, torch.arange(4))

    def draw(stream, image, count):
        return Randomness(seed, 0, random.positions[image : image + 1]).uniform(stream, count)[0]

    return draw


def test_background_overlaps_an_object_a_little():
    overlaps = torch.tensor([[0.0, 0.09, 0.1, 0.49, 0.5, 1.0], [0.0, 0.0, 0.3, 0.0, 0.7, 0.2]])
    assert BandMatcher(0.5, 0.1)(overlaps).tolist() == [-2, -2, -1, -1, 1, 0]


def test_a_quarter_of_the_regions_are_objects_at_most():
    sampler = CounterSampler(128, 0.25, "regions")
    sampler.draw = draw_of(0)
    labels = torch.cat([torch.full((50,), 3), torch.zeros(500), torch.full((100,), -1)]).long()
    few = torch.cat([torch.full((5,), 1), torch.zeros(200)]).long()
    (many, rare), (background, rest) = sampler([labels, few])
    assert (int(many.sum()), int(background.sum())) == (32, 96)
    assert (int(rare.sum()), int(rest.sum())) == (5, 123)
    assert bool((labels[many.bool()] == 3).all())
    assert bool((labels[background.bool()] == 0).all())


def test_samples_follow_from_the_counter_alone():
    sampler = CounterSampler(64, 0.25, "regions")
    sampler.draw = draw_of(0)
    labels = torch.randint(-1, 3, (2, 400), generator=torch.Generator().manual_seed(0))
    first = sampler(list(labels))
    torch.manual_seed(99)
    again = sampler([labels[0], labels[1, :50]])  # the other image is no part of it
    assert torch.equal(first[0][0], again[0][0])
    assert torch.equal(first[1][0], again[1][0])
    sampler.draw = draw_of(1)
    assert not torch.equal(sampler(list(labels))[1][0], first[1][0])


def test_losses_by_hand(encoder):
    """Scores of zero: log of the number of classes; smooth L1 with its bend at 1 of an object's."""
    heads = heads_of(encoder, classes=3, rois=8)
    for layer in (heads.box_predictor.scores, heads.box_predictor.boxes):
        nn.init.zeros_(layer.weight)
    boxes = torch.tensor([[20.0, 20, 60, 60]])
    near = torch.tensor([[22.0, 20, 62, 60], [40.0, 40, 90, 90]])  # overlaps of 0.90 and 0.11
    far = torch.tensor([[0.0, 0, 5, 5]])
    maps = {"map": torch.rand(1, Geometry(encoder, "conv5").channels, 8, 8)}
    target = {"boxes": boxes, "labels": torch.tensor([2])}
    losses = heads.losses(maps, [torch.cat([near, far])], [target])
    assert float(losses["loss_class"].detach()) == pytest.approx(math.log(4))
    shift = -2 / 40 * 10  # in deviations of 0.1; the object itself is a region, without shift
    assert float(losses["loss_box"].detach()) == pytest.approx(0.5 * shift**2 / 3)


def test_an_image_without_objects_is_background(encoder):
    heads = heads_of(encoder)
    maps = {"map": torch.rand(1, Geometry(encoder, "conv5").channels, 8, 8)}
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    losses = heads.losses(maps, [torch.tensor([[0.0, 0, 50, 50]])], [empty])
    assert float(losses["loss_class"].detach()) > 0
    assert float(losses["loss_box"].detach()) == 0
    losses = heads.losses(maps, [torch.zeros(0, 4)], [empty])
    assert [float(loss.detach()) for loss in losses.values()] == [0, 0]


def test_detections_are_suppressed_by_class_and_limited_by_image(encoder):
    heads = heads_of(encoder, classes=2)
    boxes = torch.tensor([[0.0, 0, 40, 40], [2, 0, 42, 40], [50, 50, 90, 90], [80, 80, 140, 140]])
    chances = torch.tensor([[0.1, 0.8, 0.1], [0.1, 0.2, 0.7], [0.4, 0.5, 0.1], [0.6, 0.3, 0.1]])
    found, scores, labels = (
        part[0]
        for part in heads.postprocess_detections(
            chances.log(), torch.zeros(4, 12), [boxes], [(100, 120)]
        )
    )
    of_one = labels == 1
    assert scores[of_one] == pytest.approx(torch.tensor([0.8, 0.5, 0.3]))  # the second overlaps
    assert found[of_one][-1].tolist() == [80, 80, 120, 100]  # cut at the image's edge
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    many = torch.rand(400, 2).repeat(1, 2) * 1000
    many[:, 2:] += 5
    found, *_ = heads.postprocess_detections(
        torch.zeros(400, 3), torch.zeros(400, 12), [many], [(2000, 2000)]
    )
    assert len(found[0]) == 100
    nothing = heads.postprocess_detections(
        torch.zeros(0, 3), torch.zeros(0, 12), [many[:0]], [(9, 9)]
    )
    assert [len(part[0]) for part in nothing] == [0, 0, 0]


def test_fresh_layers_have_caffenets_fillers(encoder):
    heads = new_heads(Geometry(encoder, "conv5"), 512, 20, 128, 0.1, 0)
    fc6, fc7 = (layer for layer in heads.box_head if isinstance(layer, nn.Linear))
    scores, boxes = heads.box_predictor.scores, heads.box_predictor.boxes
    for layer, std, bias in ((fc6, 0.005, 1), (fc7, 0.005, 1), (scores, 0.01, 0), (boxes, 1e-3, 0)):
        assert float(layer.weight.detach().std()) == pytest.approx(std, rel=0.03)
        assert bool((layer.bias == bias).all())
    assert (scores.out_features, boxes.out_features) == (21, 84)
    assert [layer.p for layer in heads.box_head if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    again = new_heads(Geometry(encoder, "conv5"), 512, 20, 128, 0.1, 0)
    assert weights_digest(heads.state_dict()) == weights_digest(again.state_dict())
    other = new_heads(Geometry(encoder, "conv5"), 512, 20, 128, 0.1, 1)
    assert weights_digest(heads.state_dict()) != weights_digest(other.state_dict())


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


# ---- what learns


def test_conv1_stays_and_the_rest_learns(stores, tmp_path, monkeypatch):
    networks, tested = kept(monkeypatch), subject(stores[0])
    before = {name: t.clone() for name, t in tested.encoder.state_dict().items()}
    digest = weights_digest(tested.encoder.state_dict())
    outcome = detected(QUICK, tested, stores, tmp_path / "a")
    after = networks[0].encoder.cpu().state_dict()
    moved = {
        name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])
    }
    assert moved == {"conv2", "conv3", "conv4", "conv5"}
    assert weights_digest(tested.encoder.state_dict()) == digest  # the subject itself
    assert outcome.selection["stride"] == 16
    assert outcome.selection["margin"] == 17
    assert set(outcome.selection["final_losses"]) == {"loss", "loss_class", "loss_box"}


def test_a_frozen_encoder_stays_as_it_was(stores, tmp_path, monkeypatch):
    networks, tested = kept(monkeypatch), subject(stores[0])
    frozen = QUICK.model_copy(update={"freeze": True, "steps": 2})
    detected(frozen, tested, stores, tmp_path / "a")
    digest = weights_digest(tested.encoder.state_dict())
    assert weights_digest(networks[0].encoder.cpu().state_dict()) == digest
    assert not networks[0].train().encoder.training


def test_an_encoder_that_changes_though_frozen_is_an_error(stores, tmp_path):
    tested = subject(stores[0])

    def drift(module, *_):
        module[0].bias.data.add_(1e-3)

    conv1: Any = tested.encoder.conv1
    conv1.register_forward_hook(drift)
    frozen = QUICK.model_copy(update={"freeze": True, "steps": 1})
    with pytest.raises(DataError, match="weights changed during a frozen evaluation"):
        detected(frozen, tested, stores, tmp_path / "a")


def test_batch_statistics_stay_in_any_encoder(stores):
    tested = subject(stores[0], 1.0, "torchvision:resnet18", "layer3")
    network = FastRCNN(QUICK)._network(tested, "layer3", 10)
    network.train()
    norms = [m for m in network.encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    fixed = [n for n, p in network.encoder.named_parameters() if not p.requires_grad]
    behind = ("model.layer4", "model.fc")
    assert [n for n in fixed if not n.startswith(behind)] == ["model.conv1.weight"]
    assert network.pooling.stride == 16


def test_biases_learn_twice_as_fast_and_do_not_decay(stores):
    network = FastRCNN(QUICK)._network(subject(stores[0]), "conv5", 10)
    learner = Learner(network, stores[0], None, PLAIN, 1e-3)
    (sgd,) = learner.optimizers()
    weights, biases = sgd.param_groups
    assert (weights["lr"], weights["weight_decay"], weights["momentum"]) == (1e-3, 5e-4, 0.9)
    assert (biases["lr"], biases["weight_decay"], biases["momentum"]) == (2e-3, 0, 0.9)
    assert len(weights["params"]) == len(biases["params"]) == 4 + 4  # conv2-5; fc6-7, two outputs


def test_the_rate_falls_once_at_three_quarters():
    factors = [_factor("drop", step / 40_000) for step in (0, 29_999, 30_000, 39_999)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1])


def same(a, b):
    return all(np.array_equal(a.predictions[name], b.predictions[name]) for name in a.predictions)


@pytest.mark.parametrize("config", [QUICK, LEARNT], ids=["selective-search", "rpn"])
def test_a_stopped_training_continues_to_the_same_detections(config, stores, tmp_path, monkeypatch):
    whole = detected(config, subject(stores[0]), stores, tmp_path / "whole")
    plain, steps = Learner.train_step, []

    def stopping(self, images, step):
        steps.append(step.index)
        if step.index == 2 and steps.count(2) == 1:
            signal.raise_signal(signal.SIGINT)
        return plain(self, images, step)

    monkeypatch.setattr(Learner, "train_step", stopping)
    with pytest.raises(Interrupted):
        detected(config, subject(stores[0]), stores, tmp_path / "cut")
    again = detected(config, subject(stores[0]), stores, tmp_path / "cut")
    assert steps == [0, 1, 2, 3, 4]
    assert same(again, whole)
    assert again.selection["final_losses"] == whole.selection["final_losses"]


def test_workers_change_nothing(stores, tmp_path):
    alone = detected(QUICK, subject(stores[0]), stores, tmp_path / "alone")
    assert same(alone, detected(QUICK, subject(stores[0]), stores, tmp_path / "two", workers=2))


def test_half_precision_trains(stores, tmp_path):
    config = LEARNT.model_copy(update={"precision": "bf16", "steps": 2})
    outcome = detected(config, subject(stores[0]), stores, tmp_path / "a")
    assert all(math.isfinite(loss) for loss in outcome.selection["final_losses"].values())


# ---- what comes out


def test_predictions_are_a_row_per_image_best_first(stores, tmp_path):
    outcome = detected(QUICK, subject(stores[0]), stores, tmp_path / "a")
    found, truth = outcome.predictions["detections"], outcome.predictions["objects"]
    assert found.shape == (5, 100, 6)
    assert found.dtype == truth.dtype == np.float32
    assert np.array_equal(truth, truth_of(stores[1]))
    for rows, (h, w) in zip(found, stores[1].sizes, strict=True):
        rows = rows[rows[:, 0] >= 0]
        assert len(rows) > 0
        assert (np.diff(rows[:, 1]) <= 0).all()
        assert (rows[:, 2:] >= 0).all()
        assert (rows[:, 2:] <= [w, h, w, h]).all()
    metrics = FastRCNN(QUICK).score(outcome.predictions)
    assert {"map11", "map11_low", "map11_high", "map", "coco_map"} <= metrics.keys()
    named = outcome.selection["ap11"]
    assert sum(named.values()) / len(named) == pytest.approx(metrics["map11"], abs=0.01)
    assert 0 < outcome.selection["proposals"]["recall"] <= 100
    for name in ("detections.png", "precision-recall.png"):
        with Image.open(tmp_path / "a" / name) as picture:
            assert min(picture.size) > 200


def test_truth_and_its_recall():
    assert padded([np.ones((2, 6)), np.zeros((0, 6))], 3)[..., 0].tolist() == [[1, 1, -1], [-1] * 3]
    boxes = np.array([[0, 0, 10, 10], [0, 0, 5, 5]], np.float32)
    truth = np.full((2, 2, 6), -1, np.float32)
    truth[0] = [(1, 0, 0, 0, 10, 9), (1, 0, 50, 50, 60, 60)]
    truth[1, 0] = (1, 1, 70, 70, 80, 80)  # difficult
    assert proposal_recall(Proposals(boxes, np.array([1, 2])), truth) == 50


def test_other_images_are_no_part_of_a_detection(stores):
    network = FastRCNN(QUICK)._network(subject(stores[0]), "conv5", 10)
    test = stores[1]
    boxes = open_proposals(test, "test")
    every = detect(network, test, boxes, test.normalization)
    index = test.index
    shown = [3, 1]
    part: Any = _Part(test, shown)
    offsets = np.cumsum([len(boxes[i]) for i in shown])
    some = Proposals(np.concatenate([boxes[i] for i in shown]), offsets)
    assert np.array_equal(detect(network, part, some, index_normalization(index)), every[shown])


class _Part:
    """Some images of a store."""

    def __init__(self, store, which):
        self.store, self.which = store, np.array(which)
        self.sizes = store.sizes[self.which]

    def __len__(self):
        return len(self.which)

    def images(self, which):
        return self.store.images(self.which[which])


def index_normalization(index):
    return Normalization(mean=index.mean, std=index.std)


# ---- requests


def test_nothing_to_learn_or_to_find_is_refused_before_anything_is_computed(stores):
    train, test = stores

    class Without:
        def __init__(self, store, difficult):
            self.store, self.difficult = store, difficult

        def __len__(self):
            return len(self.store)

        def objects(self, i):
            found = self.store.objects(i)
            keep = slice(None) if self.difficult else slice(0)
            hard = np.ones(len(found.labels[keep]), bool)
            return type(found)(found.boxes[keep], found.labels[keep], hard)

    harness: Any = FastRCNN(QUICK)
    harness.check(train, test)
    with pytest.raises(DataError, match="training images hold no object"):
        harness.check(Without(train, difficult=False), test)
    with pytest.raises(DataError, match="no object to find that is not difficult"):
        harness.check(train, Without(test, difficult=True))


def test_an_encoder_of_one_size_is_refused_before_anything_is_searched(
    stores, tmp_path, monkeypatch
):
    def refuse(*_):
        raise AssertionError("searched")

    monkeypatch.setattr(detection, "open_proposals", refuse)
    tested = subject(stores[0])
    plain = type(tested.encoder).forward

    def choosy(self, images, layers):
        assert images.shape[-2:] == (64, 64), "Input does not match the model"
        return plain(self, images, layers)

    monkeypatch.setattr(type(tested.encoder), "forward", choosy)
    with pytest.raises(UsageError, match="one size only"):
        detected(QUICK, tested, stores, tmp_path / "a")


def test_deviations_are_named():
    assert FastRCNNConfig(precision="32", seed=3).deviations() == []
    other = QUICK.model_copy(update={"precision": "bf16", "freeze": True}).deviations()
    assert {"steps=5", "short=96", "freeze=True", "precision=bf16"} <= set(other)


def test_the_command_and_its_refusals(bench, workspace, tiny_photos):
    place = ("--workers", "0", "--workspace", workspace)
    assert bench("pretrain", "random", *TOY, *SCENES, "--workspace", workspace).code == 0
    data = ("--data", "scenes:train=6,test=4")
    result = bench("detect", *DETECT, *data, *place)  # conv5: RoI pooling takes pool5's place
    assert result.code == 0, result.err
    assert "detection/fast-rcnn@1 steps=3" in result.out
    path = only(workspace, "evaluation/*/record.json")
    record = json.loads(path.read_text())
    assert record["identity"]["layer"] == "conv5"
    assert {"map11", "map", "coco_map"} <= record["metrics"].keys()
    files = {"predictions.npz", "detections.png", "precision-recall.png"}
    assert files <= record["files"].keys()
    assert not (path.parent / "checkpoint.pt").exists()
    with np.load(path.parent / "predictions.npz") as arrays:
        stored = FastRCNN(QUICK).score(dict(arrays))
    assert stored == pytest.approx(record["metrics"])
    assert bench("detect", "--layer", "conv5", *DETECT, *data, *place).out == result.out

    learnt = bench("detect", "--layer", "conv5", *DETECT, "--proposals", "rpn", *data, *place)
    assert learnt.code == 0, learnt.err
    assert "proposals=rpn" in learnt.out
    detect = ("detect", "--layer", "conv5")
    fails(bench(*detect, "--short", "900", "--longest", "800", *data, *place), 2, "--short 900")
    fails(bench(*detect, "--proposals", "edges", *data, *place), 2, "edges")
    fails(bench(*detect, "--rois", "0", *data, *place), 2, "--rois")
    fails(bench("detect", "--layer", "conv9", *DETECT, *data, *place), 2, "conv9")
    photos = ("--data", f"folder:{tiny_photos}")
    refused = bench(*detect, *DETECT, *photos, *place)
    assert refused.code in (1, 2)
    fails(refused, refused.code, "detection")


# ---- learning


def test_rescaling_levels_the_rates_up_to_fc7(stores, tmp_path):
    config = QUICK.model_copy(update={"steps": 1, "rescale": True, "freeze": True})
    scales = detected(config, subject(stores[0]), stores, tmp_path).selection["rescaled"]
    rates = [scales[name] for name in scales if name.endswith("rate_after")]
    before = [scales[name] for name in scales if name.endswith("rate_before")]
    assert len(rates) == 7  # conv1-5, fc6, fc7
    assert max(rates) / min(rates) < 1.05 < max(before) / min(before)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["selective-search", "rpn"])
def test_it_learns_its_training_images(source, tmp_path):
    """Eight scenes, tested on what it was trained on: every object, in its place."""
    data = catalogue.dataset("scenes:train=8,test=1")
    store = open_whole(data, "train", "detection", 192, 192, workers=0)
    config = FastRCNNConfig(
        steps=800, batch_size=4, lr=4e-3, short=192, longest=192, head=256, rois=64,
        proposals=source, rescale=True,
    )  # fmt: skip
    outcome = detected(config, subject(store, 0.5), (store, store), tmp_path / "a")
    assert FastRCNN(config).score(outcome.predictions)["map11"] > 90
