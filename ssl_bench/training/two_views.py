"""What methods that compare two views of an image share: their settings, and the views."""

from collections.abc import Callable
from functools import partial
from typing import Any

from pydantic import Field
from torch import Tensor

from ssl_bench.encoders.spec import RESNET50, ImageSize
from ssl_bench.training.config import PretextConfig
from ssl_bench.training.optimizers import OptimizerName
from ssl_bench.training.pretext import Pretext, Step
from ssl_bench.training.schedule import Schedule
from ssl_bench.training.views import byol_view

IMAGENET = 1_281_167  # images
# Recipe small, of all: lightly's Imagenette benchmark, but at 64 px, which a laptop can do; 7,400
# steps are 200 epochs of its 9,469 images.
SMALL: dict[str, Any] = {
    "arch": "torchvision:resnet18", "image_size": 64, "steps": 7_400, "batch_size": 256,
    "optimizer": "sgd", "lr": 0.06, "weight_decay": 5e-4, "warmup": 0,
}  # fmt: skip
# BYOL's, Barlow Twins' and VICReg's: the first is always blurred, the second sometimes solarised.
BYOL_VIEWS = byol_view, partial(byol_view, blurring=0.1, solarising=0.2)


def ten_epochs(steps: int, batch_size: int) -> int:
    """Steps in ten epochs of ImageNet, over which LARS is warmed up; at most a tenth of all."""
    return min(10 * IMAGENET // batch_size, steps // 10)


class TwoViewsConfig(PretextConfig):
    """ResNet-50 at 224 px; a rate for 256 images, which the batch's size scales."""

    arch: str = Field(
        default=RESNET50, description="encoder: alexnet, dcgan, timm:NAME or torchvision:NAME"
    )
    image_size: ImageSize = Field(default=224, description="side of the network's input, px")
    batch_size: int = Field(default=4096, ge=2, description="images per update over all devices")
    lr: float = Field(
        default=0.3, gt=0, le=1e30,
        description="learning rate for 256 images an update: times --batch-size / 256",
    )  # fmt: skip
    schedule: Schedule = Field(default="cosine", description="the learning rate's course")
    warmup: int = Field(
        default_factory=lambda given: ten_epochs(given["steps"], given["batch_size"]), ge=0,
        description="steps over which the learning rate rises from 0, before its course; where it "
        "is not 0: ten epochs of ImageNet, at most a tenth of the steps",
    )  # fmt: skip
    optimizer: OptimizerName = Field(default="lars", description="optimiser: sgd, lars or adamw")
    weight_decay: float = Field(default=1e-6, ge=0, description="of the optimiser")

    @property
    def rate(self) -> float:
        """The learning rate of this batch size (Goyal et al. 2017, the linear scaling rule)."""
        return self.lr * self.batch_size / 256


def two_views(
    task: Pretext, images: Tensor, step: Step, recipes: tuple[Callable[..., Tensor], ...]
) -> list[Tensor]:
    """uint8 (B, 3, R, R) -> two normalised float32 (B, 3, S, S), one by each recipe of views.py."""
    size = task.config.image_size
    drawn = (
        recipe(images, size, step.random.view(name))
        for name, recipe in zip(("one", "two"), recipes, strict=True)
    )
    return [task.normalization.standardize(view) for view in drawn]
