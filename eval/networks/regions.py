"""Regions of Fast R-CNN: how they are pooled, sampled, learnt, and become detections.

Girshick, "Fast R-CNN", ICCV 2015 (arXiv 1504.08083), with the numbers of its published code
(github.com/rbgirshick/fast-rcnn). torchvision's RoIHeads carry it: matching, box coding and
suppression. Only what they lack is here: regions placed on the trunk's true units, background from
a range of overlaps, samples that are drawn by counter, the original's loss and its limits on
detections.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes, roi_pool

from eval.networks.geometry import Geometry

POOLED = 6  # side of what a region is pooled to: AlexNet's pool5
FOREGROUND, BACKGROUND = 0.5, 0.1  # least overlap with an object; background lies between
FOREGROUND_SHARE = 0.25  # of the regions that are learnt
SUPPRESSION = 0.3  # overlap at which the weaker of two detections of a class goes
# Detections per class before suppression (the published test.py's max_per_image), and per image in
# the end, over all classes. The latter is COCO's limit and not published: there, a threshold for
# each class keeps 40 a test image on average, and classes do not compete for places.
MOST = 100
DEVIATIONS = (10.0, 10.0, 5.0, 5.0)  # 1 / deviation of offsets and log sizes, as in torchvision
Draw = Callable[[str, int, int], Tensor]  # stream, image of the batch, n -> uniform (n,)
Target = dict[str, Tensor]  # boxes float (M, 4), labels int64 (M,) from 1


class RoIPool(nn.Module):
    """Max pooling of each region's units to 6×6, in torchvision's interface.

    CaffeNet's conv5 has a unit on every 16th pixel, beginning with number 17, since conv1 and the
    pooling have no padding; the published code pads them, which puts the first unit on the first
    pixel. The margin does that here: so many zeros, the mean colour, stand around the image.
    """

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.stride = geometry.stride
        self.margin = max(0, math.ceil(geometry.offset))
        self.first = geometry.offset - self.margin  # where the first unit lies, px

    def units(self, boxes: Tensor) -> Tensor:
        """Boxes (R, 4) in px of the image -> the units on their outer pixels, not rounded."""
        # Ours end behind their last pixel; the published boxes, VOC's, name it.
        pixels = boxes - boxes.new_tensor([0.0, 0.0, 1.0, 1.0])
        return (pixels - self.first) / self.stride

    def forward(self, features: Mapping[str, Tensor], boxes: list[Tensor], _: Any) -> Tensor:
        """Map (B, C, h, w) and float boxes (R, 4) an image -> (sum of R, C, 6, 6)."""
        maps = features["map"].float()  # as exact as the boxes
        height, width = maps.shape[-2:]
        last = boxes[0].new_tensor([width - 1, height - 1, width - 1, height - 1])
        found = [self.units(each).clamp(min=0).minimum(last) for each in boxes]
        return roi_pool(maps, found, (POOLED, POOLED))


# ---- samples and losses
class BandMatcher(Matcher):
    """Background is what overlaps an object a little; what overlaps none is left out.

    torchvision's has it the other way round.
    """

    def __call__(self, match_quality_matrix: Tensor) -> Tensor:
        """Overlaps (M, R) -> the object of each region, -1 for background, -2 to leave out."""
        found = super().__call__(match_quality_matrix)
        # torchvision: −1 below both thresholds, −2 between them. −3 − x exchanges the two.
        return torch.where(found < 0, -3 - found, found)


class CounterSampler(BalancedPositiveNegativeSampler):
    """Takes the candidates with the lowest random numbers, which `draw` gives for each image."""

    draw: Draw

    def __init__(self, count: int, share: float, stream: str) -> None:
        super().__init__(count, share)
        self.stream = stream

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """int (R,) an image: above 0 an object, 0 background, below to leave out -> masks (R,)."""
        positive, negative = [], []
        for image, labels in enumerate(matched_idxs):
            # One number even for no region: the counter's stream has no empty draw.
            keys = self.draw(self.stream, image, max(1, len(labels)))[: len(labels)]
            most = int(self.batch_size_per_image * self.positive_fraction)
            positive.append(_lowest(keys, labels >= 1, most))
            # Background fills up where objects are few, as in the published sampler.
            rest = self.batch_size_per_image - int(positive[-1].sum())
            negative.append(_lowest(keys, labels == 0, rest))
        return positive, negative


def _lowest(keys: Tensor, eligible: Tensor, count: int) -> Tensor:
    """uint8 mask of the `count` eligible places with the lowest keys, or of all there are."""
    order = keys.masked_fill(~eligible, 2.0).argsort(stable=True)  # keys are below 1
    mask = torch.zeros_like(eligible, dtype=torch.uint8)
    mask[order[: min(count, int(eligible.sum()))]] = 1
    return mask


class FastRCNNHeads(RoIHeads):
    """torchvision's heads with the original's loss and its limits on detections."""

    def losses(
        self, features: Mapping[str, Tensor], proposals: list[Tensor], targets: list[Target]
    ) -> dict[str, Tensor]:
        """Class and box losses of sampled regions, each a mean over all of them.

        Smooth L1 bends at 1, on offsets in units of their deviation; torchvision's bends at 1/9.
        """
        regions, _, found, offsets = self.select_training_samples(list(proposals), targets)
        scores, shifts = self.box_predictor(self.box_head(self.box_roi_pool(features, regions, 0)))
        labels, offsets = torch.cat(found), torch.cat(list(offsets))
        # Caffe divides both losses by all regions, not the box loss by the objects alone.
        count = max(1, len(labels))
        objects = torch.where(labels > 0)[0]
        shifts = shifts.unflatten(1, (-1, 4))[objects, labels[objects]]  # (F, 4)
        return {
            "loss_class": F.cross_entropy(scores, labels, reduction="sum") / count,
            "loss_box": F.smooth_l1_loss(shifts, offsets[objects], reduction="sum") / count,
        }

    def postprocess_detections(
        self,
        class_logits: Tensor,
        box_regression: Tensor,
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Boxes (n, 4), scores (n,) and labels (n,) from 1, an image, best first, n <= 100."""
        counts = [len(boxes) for boxes in proposals]
        boxes = self.box_coder.decode(box_regression, proposals)
        boxes = boxes.reshape(*class_logits.shape, 4).split(counts)
        scores = class_logits.softmax(1).split(counts)
        made = [
            self._best(clip_boxes_to_image(b[:, 1:], shape), s[:, 1:])
            for b, s, shape in zip(boxes, scores, image_shapes, strict=True)
        ]
        return [m[0] for m in made], [m[1] for m in made], [m[2] for m in made]

    # torchvision thresholds scores first; weak detections never lower an average precision, and a
    # briefly trained detector has no others.
    def _best(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (R, C, 4), scores (R, C): the best of each class, suppressed, then of all."""
        best, rows = scores.topk(min(MOST, len(scores)), 0)  # (<= 100, C)
        columns = torch.arange(scores.shape[1], device=scores.device).expand_as(rows)
        found, best, labels = boxes[rows, columns].flatten(0, 1), best.flatten(), columns.flatten()
        kept = remove_small_boxes(found, 1e-2)
        found, best, labels = found[kept], best[kept], labels[kept]
        kept = batched_nms(found, best, labels, self.nms_thresh)[: self.detections_per_img]
        return found[kept], best[kept], labels[kept] + 1
