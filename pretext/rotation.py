"""Rotation: tell by which quarter turn an image was rotated (Gidaris et al., ICLR 2018).

Gidaris, Singh, Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations",
arXiv 1803.07728, known as RotNet; settings of the released code, config/ImageNet_RotNet_AlexNet.py
of gidariss/FeatureLearningRotNet.

    bench pretrain rotation --norm batch --init fan-in --data folder:photos

3×227×227 -> (alexnet) 256×6×6 -> 4096 -> 4096 -> 4 classes: 0°, 90°, 180°, 270°. Every image is
seen in all four turns in one step, so a batch of 192 trains on 768. Published, fine-tuned for VOC07
detection: 54.4 % mAP, where k-means filters have 45.6 and the context encoder 44.5. Images without
an upright side teach nothing. docs/rotation.md says what is ours.
"""

from collections.abc import Mapping
from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.encoder import POOLED, Encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.training.heads import representation
from ssl_bench.training.pretext import Pretext, PretextConfig, Step
from ssl_bench.training.schedule import SCHEDULES, Schedule
from ssl_bench.training.views import resized_crop

TURNS = 4
HIDDEN = 4096  # units of the head's two hidden layers: AlexNet's fc6 and fc7
# A tenth after epochs 15, 30 and 45 of 50.
SCHEDULES["rotnet"] = lambda done: 0.1 ** sum(done >= drop for drop in (0.3, 0.6, 0.9))


class RotationConfig(PretextConfig):
    """The settings of RotNet; the released code's for ImageNet by default."""

    steps: int = Field(default=333_637, ge=1, description="updates; 50 epochs of ImageNet")
    batch_size: int = Field(
        default=192, ge=1, description="images per update over all devices, each in four turns"
    )
    lr: float = Field(default=0.1, gt=0, le=1e30, description="SGD's learning rate at the start")
    schedule: Schedule = Field(
        default="rotnet",
        description="the learning rate's course: rotnet, a tenth after 0.3, 0.6 and 0.9 of the "
        "steps; constant; cosine; step; halve; drop",
    )
    smallest_crop: float = Field(
        default=0.08, gt=0, le=1, description="share of the image that a crop shows at least"
    )
    hidden: int | None = Field(
        default=None,
        ge=0,
        description="units of the head's two hidden layers, 0: none; unset: 4096 times the width "
        "on maps, 0 on a network's pooled representation",
    )


def four_turns(images: Tensor) -> Tensor:
    """(B, C, S, S) -> (4·B, C, S, S): all as they are, then turned by 90°, 180° and 270°.

    Anticlockwise, as `torch.rot90`. Whole quarters move pixels and blend none, so no trace of
    resampling tells the turn.
    """
    return torch.cat([images.rot90(turn, (2, 3)) for turn in range(TURNS)])


def turn_labels(count: int, device: torch.device) -> Tensor:
    """int64 (4·count,): the turns of what `four_turns` makes of `count` images, in quarters."""
    return torch.arange(TURNS, device=device).repeat_interleave(count)


def classifier(inputs: int, hidden: int) -> nn.Sequential:
    """(B, …) -> (B, 4): two hidden layers with batch normalisation, or with 0 of them none."""
    layers: list[nn.Module] = [nn.Flatten()]
    sizes = [inputs, hidden, hidden] if hidden else [inputs]
    for before, after in pairwise(sizes):  # without biases, which the normalisation would undo
        layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], TURNS))


class Rotation(Pretext):
    """Four quarter turns of every image, told apart by a classifier on the encoder's last layer."""

    Config = RotationConfig
    version = 1

    def __init__(
        self, config: RotationConfig, encoder: Encoder, normalization: Normalization
    ) -> None:
        super().__init__(config, encoder, normalization)
        # pool5 of AlexNet, `pooled` of a ResNet
        self.layer, inputs = representation(encoder, config.image_size)
        hidden = config.hidden
        if hidden is None:
            hidden = 0 if self.layer == POOLED else max(1, round(HIDDEN * config.width))
        self.head = classifier(inputs, hidden)
        initialize(self.head, config.init, config.seed, "head")

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD with Nesterov's momentum; the decay is on all weights, as released."""
        self.sgd = torch.optim.SGD(
            self.parameters(), self.config.lr, momentum=0.9, weight_decay=5e-4, nesterov=True
        )
        return [self.sgd]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """Cross-entropy over the turns (paper, eqs. 2 and 3), and how many are right, in percent.

        An image is cropped and mirrored once, and the four turns are those of that one crop.
        """
        size, scale = self.config.image_size, (self.config.smallest_crop, 1.0)
        crops = resized_crop(images, size, step.random, scale, mirrored=0.5)
        pixels = four_turns(self.normalization.standardize(crops))
        turns = turn_labels(len(images), images.device)
        guessed = self.head(self.encoder(pixels, [self.layer])[self.layer])  # (4·B, 4)
        loss = F.cross_entropy(guessed, turns)
        step.update(self.sgd, loss)
        right = 100 * (guessed.argmax(1) == turns).float().mean()
        return {"loss": loss.detach(), "accuracy": right}
