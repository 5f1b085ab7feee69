"""The network of Fast R-CNN and its training: a trunk, regions of one of its layers, fc6 and fc7.

As published for CaffeNet (github.com/rbgirshick/fast-rcnn, models/CaffeNet): RoI pooling to 6×6 in
the place of pool5, SGD with momentum 0.9 and weight decay 5e-4, biases at twice the rate without
decay, conv1 as it is. With torchvision's region proposal network it is Faster R-CNN (Ren et al.,
arXiv 1506.01497), trained in one go. How regions are learnt stands in eval/networks/regions.py.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import AnchorGenerator, RegionProposalNetwork, RPNHead

from eval.networks.geometry import PROBE, Geometry
from eval.networks.regions import (
    DEVIATIONS,
    FOREGROUND,
    FOREGROUND_SHARE,
    MOST,
    POOLED,
    SUPPRESSION,
    BandMatcher,
    CounterSampler,
    Draw,
    FastRCNNHeads,
    RoIPool,
    Target,
)
from ssl_bench.counter import generator
from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.build import learn_up_to, weights_of
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.encoders.rescale import rescale_with_head

ANCHORS = (128, 256, 512)  # sides at short side 600, px (Ren et al., arXiv 1506.01497)


# ---- the network
class Predictor(nn.Module):
    """Scores of background and classes, and a box for each of them."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.scores = nn.Linear(width, 1 + classes)
        self.boxes = nn.Linear(width, 4 * (1 + classes))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(R, width) -> (R, 1 + C) and (R, 4·(1 + C))."""
        return self.scores(x).float(), self.boxes(x).float()


def new_heads(
    geometry: Geometry, width: int, classes: int, regions: int, lowest: float, seed: int
) -> FastRCNNHeads:
    """Fresh fc6, fc7 and predictor with CaffeNet's fillers: N(0, 0.005²) and bias 1.

    Scores start at N(0, 0.01²) and boxes at N(0, 0.001²), without bias. Background overlaps an
    object by `lowest` at least.
    """
    layers = [nn.Flatten()]
    for name, inputs in (("fc6", geometry.channels * POOLED**2), ("fc7", width)):
        linear = _linear(nn.Linear(inputs, width), 0.005, 1.0, seed, name)
        layers += [linear, nn.ReLU(), nn.Dropout(0.5)]
    predictor = Predictor(width, classes)
    _linear(predictor.scores, 0.01, 0.0, seed, "scores")
    _linear(predictor.boxes, 0.001, 0.0, seed, "boxes")
    heads = FastRCNNHeads(
        box_roi_pool=RoIPool(geometry),
        box_head=nn.Sequential(*layers),
        box_predictor=predictor,
        fg_iou_thresh=FOREGROUND,
        bg_iou_thresh=FOREGROUND,
        batch_size_per_image=regions,
        positive_fraction=FOREGROUND_SHARE,
        bbox_reg_weights=DEVIATIONS,
        score_thresh=0.0,  # unused: `postprocess_detections` is ours
        nms_thresh=SUPPRESSION,
        detections_per_img=MOST,
    )
    if lowest:
        # Girshick's "hard negatives": what overlaps no object at all is too easy to be learnt.
        heads.proposal_matcher = BandMatcher(FOREGROUND, lowest)
    heads.fg_bg_sampler = CounterSampler(regions, FOREGROUND_SHARE, "regions")
    return heads


def _linear(layer: nn.Linear, std: float, bias: float, seed: int, name: str) -> nn.Linear:
    nn.init.normal_(layer.weight, std=std, generator=generator(seed, "detection", name))
    nn.init.constant_(layer.bias, bias)
    return layer


def new_rpn(channels: int, short: int, seed: int) -> RegionProposalNetwork:
    """Faster R-CNN's proposals: nine anchors a unit, scaled with the image's short side."""
    sides = tuple(side * short / 600 for side in ANCHORS)
    anchors = AnchorGenerator((sides,), ((0.5, 1.0, 2.0),))
    head = RPNHead(channels, anchors.num_anchors_per_location()[0])
    initialize(head, "gaussian", seed, "rpn")
    rpn = RegionProposalNetwork(
        anchor_generator=anchors,
        head=head,
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 12_000, "testing": 6000},
        post_nms_top_n={"training": 2000, "testing": 300},
        nms_thresh=0.7,
    )
    # torchvision's sampler draws from the global generator, whose state is history.
    rpn.fg_bg_sampler = CounterSampler(256, 0.5, "anchors")
    return rpn


class Detector(nn.Module):
    """A trunk up to one layer and what finds objects in its map.

    In training mode a call returns losses, else detections. Batch normalisation keeps the
    statistics it came with: two images make none.
    """

    def __init__(
        self, encoder: Encoder, layer: str, heads: FastRCNNHeads, rpn: RegionProposalNetwork | None
    ) -> None:
        super().__init__()
        self.encoder, self.layer, self.heads, self.rpn = encoder, layer, heads, rpn
        self.pooling: RoIPool = heads.box_roi_pool
        self.frozen = False

    def train(self, mode: bool = True) -> "Detector":
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        # Layers have no mode of their own to keep: `train()` sets all of them, so it is undone.
        for module in self.encoder.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def freeze(self, whole: bool) -> None:
        """Keep the first layer as it is, as the original does, or the whole trunk."""
        self.frozen = whole
        self.encoder.requires_grad_(not whole)
        if whole:
            return
        learn_up_to(self.encoder, self.layer, PROBE)
        for weight in weights_of(self.encoder, self.encoder.layers[0], PROBE):
            weight.requires_grad_(False)

    def forward(
        self,
        images: Tensor,
        sizes: list[tuple[int, int]],
        proposals: list[Tensor] | None,
        targets: list[Target] | None = None,
        draw: Draw | None = None,
    ) -> Any:
        """Normalised (B, 3, H, W) with margins, and each image's h, w without them.

        Returns losses by name, or per image a dict of boxes (n, 4), labels (n,) from 1 and
        scores (n,), best first.
        """
        self._draw_by(draw)
        maps = self.encoder(images, [self.layer])[self.layer]  # (B, C, h, w)
        losses: dict[str, Tensor] = {}
        if self.rpn is not None:
            with torch.autocast(maps.device.type, enabled=False):  # boxes need 32 bit
                proposals, losses = self._propose(self.rpn, maps.float(), sizes, targets)
        assert proposals is not None
        if not self.training:
            return self.heads({"map": maps}, proposals, sizes)[0]
        assert targets is not None
        return losses | self.heads.losses({"map": maps}, proposals, targets)

    def _propose(
        self, rpn: nn.Module, maps: Tensor, sizes: list[tuple[int, int]], targets: Any
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """torchvision takes the stride from the sizes: these give the true one."""
        height, width = (side * self.pooling.stride for side in maps.shape[-2:])
        blank = torch.empty(len(maps), 1, height, width, device="meta")
        return rpn(ImageList(blank, sizes), {"map": maps}, targets)

    def _draw_by(self, draw: Draw | None) -> None:
        for module in (self.heads, self.rpn):
            if module is not None:
                module.fg_bg_sampler.draw = draw  # type: ignore[union-attr]


def rescale(network: Detector, images: Tensor, arch: str) -> dict[str, float]:
    """Set the scales of trunk, fc6 and fc7 by framed images, each as one region, before training.

    See ssl_bench.encoders.rescale; returns what was done, by name. UsageError for a trunk that is
    no chain.
    """
    parts = {"encoder": network.encoder, "pool": nn.AdaptiveMaxPool2d(POOLED)}
    chain = nn.ModuleDict({**parts, "head": network.heads.box_head})

    def run(framed: Tensor) -> Tensor:
        maps = network.encoder(framed, [network.layer])[network.layer]
        return network.heads.box_head(chain["pool"](maps))

    return rescale_with_head(chain, network.heads.box_head, run, images, arch)


# ---- images
def framed(
    pixels: Tensor,
    sizes: Sequence[tuple[int, int]],
    mirrored: Sequence[bool],
    normalization: Normalization,
    margin: int,
) -> Tensor:
    """Normalise, mirror each image within its own width, and put zeros around it.

    uint8 (B, 3, H, W) with images of h, w in the corner -> float (B, 3, H + 2m, W + 2m). Zero is
    the mean colour, as in the published code.
    """
    images = normalization.apply(pixels)
    height, width = images.shape[-2:]
    canvas = images.new_zeros(len(images), 3, height + 2 * margin, width + 2 * margin)
    for canvas_of, image, (h, w), turned in zip(canvas, images, sizes, mirrored, strict=True):
        shown = image[:, :h, :w]
        canvas_of[:, margin : margin + h, margin : margin + w] = shown.flip(2) if turned else shown
    return canvas.contiguous(memory_format=torch.channels_last)


def mirrored_boxes(boxes: Tensor, width: int) -> Tensor:
    """Boxes (n, 4) of an image of this width, as they lie in its mirror image."""
    return torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
