"""A momentum teacher with a queue, as in MoCo v2 (He et al., CVPR 2020; Chen et al., 2003.04297).

Short, to be read: the built-in `moco-v2` has the paper's settings and views.

bench pretrain momentum --data folder:photos --arch torchvision:resnet18 --image-size 64
"""

from collections.abc import Mapping
from copy import deepcopy

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.counter import generator
from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.training.pretext import Pretext, PretextConfig, Step
from ssl_bench.training.schedule import Schedule
from ssl_bench.training.views import simclr_view


class MomentumConfig(PretextConfig):
    """Settings for small sets: a shorter queue, a faster teacher."""

    batch_size: int = Field(default=256, ge=1, description="images per update over all devices")
    lr: float = Field(default=0.06, gt=0, description="SGD's learning rate at the start")
    schedule: Schedule = Field(default="cosine", description="the learning rate's course")
    queue: int = Field(
        default=4096, ge=1, description="images of earlier steps, to tell apart from"
    )
    momentum: float = Field(default=0.99, ge=0, lt=1, description="of the teacher's weights")
    temperature: float = Field(default=0.2, gt=0, description="of the softmax over the queue")


class Momentum(Pretext):
    """The student's view is to be nearer to the teacher's of the same image than to the queue."""

    Config = MomentumConfig
    version = 1
    queue: Tensor

    def __init__(
        self, config: MomentumConfig, encoder: Encoder, normalization: Normalization
    ) -> None:
        super().__init__(config, encoder, normalization)
        self.layer = encoder.layers[-1]
        channels, height, width = encoder.shape(self.layer, config.image_size)
        inside = channels * height * width
        self.head = nn.Sequential(nn.Linear(inside, inside), nn.ReLU(), nn.Linear(inside, 128))
        initialize(self.head, config.init, config.seed, "head")
        self.teacher = deepcopy(nn.ModuleList([encoder, self.head])).requires_grad_(False)
        past = torch.randn(config.queue, 128, generator=generator(config.seed, "queue"))
        self.register_buffer("queue", F.normalize(past))

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD with momentum."""
        learning = [*self.encoder.parameters(), *self.head.parameters()]
        self.sgd = torch.optim.SGD(learning, self.config.lr, momentum=0.9, weight_decay=5e-4)
        return [self.sgd]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """InfoNCE; then the teacher follows, and this step's keys take the oldest ones' places."""
        one, two = (
            self.normalization.standardize(
                simclr_view(images, self.config.image_size, step.random.view(name), strength=0.5)
            )
            for name in ("student", "teacher")
        )
        with torch.no_grad():
            keys = self._branch(two, *self.teacher)
        queries = self._branch(one, self.encoder, self.head)
        same = (queries * keys).sum(1, keepdim=True)  # (B, 1)
        likeness = torch.cat([same, queries @ self.queue.T], 1) / self.config.temperature
        loss = F.cross_entropy(likeness, torch.zeros_like(step.indices))  # the first is the same
        step.update(self.sgd, loss)
        self._follow()
        self._remember(step.gather(keys), step.index)
        return {"loss": loss.detach()}

    def _branch(self, pixels: Tensor, encoder: nn.Module, head: nn.Module) -> Tensor:
        """(B, 3, S, S) -> (B, 128) of unit length."""
        return F.normalize(head(encoder(pixels, [self.layer])[self.layer].flatten(1)))

    @torch.no_grad()
    def _follow(self) -> None:
        learnt = [*self.encoder.parameters(), *self.head.parameters()]
        for own, its in zip(self.teacher.parameters(), learnt, strict=True):
            own.lerp_(its, 1 - self.config.momentum)

    def _remember(self, keys: Tensor, index: int) -> None:
        """(N, 128) of all devices; the place follows from the step, so that nothing counts it."""
        places = index * len(keys) + torch.arange(len(keys), device=keys.device)
        self.queue[places % len(self.queue)] = keys.to(self.queue.dtype)
