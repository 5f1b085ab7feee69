"""Labels found by clustering between epochs, as in DeepCluster (Caron et al., ECCV 2018).

bench pretrain clusters --data folder:photos --image-size 128 --init fan-in
"""

from collections.abc import Mapping

import torch
from pydantic import Field
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.counter import derive
from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.training.augment import center_crop, random_crop_flip
from ssl_bench.training.batches import Images
from ssl_bench.training.pretext import Pretext, PretextConfig, Step

PASS = 128  # images at a time


class ClustersConfig(PretextConfig):
    """SGD's rate and the number of clusters."""

    lr: float = Field(default=0.05, gt=0, description="SGD's learning rate at the start")
    clusters: int = Field(default=100, ge=2, description="groups that the images are put into")


class Clusters(Pretext):
    """Before each epoch the images are put into groups; until the next one they are its classes."""

    Config = ClustersConfig
    version = 1
    labels: Tensor

    def __init__(
        self, config: ClustersConfig, encoder: Encoder, normalization: Normalization
    ) -> None:
        super().__init__(config, encoder, normalization)
        self.layer = encoder.layers[-1]
        channels, height, width = encoder.shape(self.layer, config.image_size)
        self.head = nn.Linear(channels * height * width, config.clusters)

    def prepare(self, images: int) -> None:
        """A label for each image."""
        self.register_buffer("labels", torch.zeros(images, dtype=torch.int64))

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD with momentum."""
        self.sgd = torch.optim.SGD(
            self.parameters(), self.config.lr, momentum=0.9, weight_decay=1e-5
        )
        return [self.sgd]

    def between(self, store: Images, epoch: int) -> None:
        """New groups, by k-means on unit features, and a new classifier of them."""
        self.eval()
        device, size = self.labels.device, self.config.image_size
        parts = torch.arange(len(store)).split(PASS)
        batches = (center_crop(store.batch(p.numpy())["images"].to(device), size) for p in parts)
        rows = torch.cat([self._features(self.normalization.apply(b)) for b in batches])
        seed = derive(self.config.seed, "clusters", epoch) % 2**32
        means = MiniBatchKMeans(self.config.clusters, random_state=seed)
        found = means.fit_predict(F.normalize(rows.float()).cpu().numpy())
        self.labels.copy_(torch.as_tensor(found))
        initialize(self.head, "gaussian", self.config.seed, "head", epoch)
        for weight in self.head.parameters():
            self.sgd.state.pop(weight, None)  # the momentum of the classifier before

    def _features(self, pixels: Tensor) -> Tensor:
        return self.encoder(pixels, [self.layer])[self.layer].flatten(1)

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """Cross-entropy, each group counting the same, however large it is."""
        crops = random_crop_flip(images, self.config.image_size, step.random)
        guessed = self.head(self._features(self.normalization.apply(crops)))
        sizes = torch.bincount(self.labels, minlength=self.config.clusters).clamp(min=1)
        targets = self.labels[step.indices]
        each = F.cross_entropy(guessed, targets, reduction="none") / sizes[targets]
        # The mean weight over all images is groups by images, whatever is in this batch.
        loss = each.mean() * len(self.labels) / (sizes > 1).sum()
        step.update(self.sgd, loss)
        return {"loss": loss.detach()}
