"""SimCLR: two views of an image find each other in the batch (Chen et al., ICML 2020).

Short, to be read: the built-in `simclr` has the paper's head, LARS and recipes.

bench pretrain contrast --data folder:photos --arch torchvision:resnet18 --image-size 64
"""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.training.pretext import Pretext, PretextConfig, Step
from ssl_bench.training.schedule import Schedule
from ssl_bench.training.views import simclr_view


class SimCLRConfig(PretextConfig):
    """The paper's for small sets (appendix B.9), but SGD instead of LARS."""

    batch_size: int = Field(default=256, ge=2, description="images per update over all devices")
    lr: float = Field(default=0.06, gt=0, description="SGD's learning rate at the start")
    schedule: Schedule = Field(default="cosine", description="the learning rate's course")
    width_out: int = Field(default=128, ge=1, description="numbers that views are compared by")
    temperature: float = Field(default=0.5, gt=0, description="of the softmax over the batch")


def projector(inside: int, out: int, config: PretextConfig) -> nn.Sequential:
    """Two layers between the representation and what is compared."""
    head = nn.Sequential(nn.Flatten(), nn.Linear(inside, inside), nn.ReLU(), nn.Linear(inside, out))
    initialize(head, config.init, config.seed, "head")
    return head


class SimCLR(Pretext):
    """The encoder's last layer, a head, and NT-Xent over the images of all devices."""

    Config = SimCLRConfig
    version = 1

    def __init__(
        self, config: SimCLRConfig, encoder: Encoder, normalization: Normalization
    ) -> None:
        super().__init__(config, encoder, normalization)
        self.layer = encoder.layers[-1]
        channels, height, width = encoder.shape(self.layer, config.image_size)
        self.head = projector(channels * height * width, config.width_out, config)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD with momentum."""
        self.sgd = torch.optim.SGD(
            self.parameters(), self.config.lr, momentum=0.9, weight_decay=5e-4
        )
        return [self.sgd]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """Each view among all others, of which one shows the same image."""
        views = [simclr_view(images, self.config.image_size, step.random.view(n)) for n in "ab"]
        pixels = self.normalization.standardize(torch.cat(views))
        own = F.normalize(self.head(self.encoder(pixels, [self.layer])[self.layer]))  # (2B, D)
        everyone = torch.cat([step.gather(half) for half in own.chunk(2)])  # (2N, D)
        first = step.random.positions  # (B,): this device's images among the N of all devices
        second = first + len(everyone) // 2
        likeness = own @ everyone.T / self.config.temperature  # (2B, 2N)
        itself = F.one_hot(torch.cat([first, second]), len(everyone)).bool()
        other = torch.cat([second, first])
        loss = F.cross_entropy(likeness.masked_fill(itself, float("-inf")), other)
        step.update(self.sgd, loss)
        return {"loss": loss.detach()}
