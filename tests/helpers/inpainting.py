"""The inpainting network, small, and what goes in and out of its parts."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helpers.refusals import SCENES
from pretext.context_encoder import ContextEncoderConfig
from pretext.inpainting import InpaintingConfig
from ssl_bench.counter import Randomness
from ssl_bench.data.normalization import HALF, Normalization
from ssl_bench.training.augment import random_crop_flip
from ssl_bench.training.build import build_pretext
from ssl_bench.training.pretext import Step

NORM = Normalization(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
TOY: dict[str, Any] = {"width": 0.05, "bottleneck": 8}
COMMAND = ("pretrain", "inpainting", "--width", 0.05, "--batch-size", 4, "--workers", 0, *SCENES)
MASKS = ["central", "random-block", "random-region"]
SHARES = {"l2": (1, 0), "joint": (0.999, 0.001), "adversarial": (0, 1)}  # section 4 of the paper
HOLE = torch.zeros(128, 128, dtype=torch.bool)
HOLE[39:89, 39:89] = True  # 50 px: the predicted 64 less 7 on each side


def small(**settings) -> Any:
    return build_pretext("inpainting", InpaintingConfig(**{**TOY, **settings}), NORM)[0].train()


def filler(method, mask) -> Any:
    """A network that fills holes, and is not trained."""
    if method == "inpainting":
        return small(mask=mask).eval()
    config = ContextEncoderConfig(image_size=64, width=0.25, init="fan-in", mask=mask)
    return build_pretext(method, config, NORM)[0].eval()


def a_step(index=0, count=4):
    positions = torch.arange(count)
    return Step(index, positions, Randomness(0, index, positions), lambda loss: loss.backward())


def photos(count=4, size=144, seed=0):
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=draw)
    return (F.interpolate(coarse, size, mode="bicubic").clamp(0, 1) * 255).byte()


def cropped(images, step):
    """What a step makes of its images, in [−1, 1]."""
    return HALF.apply(random_crop_flip(images, 128, step.random))


def inputs_of(module: nn.Module) -> list[Tensor]:
    """What a module is given, call by call."""
    seen = []
    module.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone()))
    return seen


def outputs_of(module: nn.Module) -> list[Tensor]:
    seen = []
    module.register_forward_hook(lambda _, __, output: seen.append(output.detach().clone()))
    return seen


def stepped(pretext, images):
    pretext.optimizers()
    return pretext.train_step(images, a_step(count=len(images)))
