"""Detection: samples, losses, suppression and fresh layers."""

import math

import pytest
import torch
from torch import nn

from eval.networks.fast_rcnn import new_heads
from eval.networks.geometry import Geometry
from eval.networks.regions import BandMatcher, CounterSampler
from helpers.detection import draw_of, heads_of
from ssl_bench.encoders.weights import weights_digest


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
