"""DeepCluster: k-means of the features gives every image a class, and the classes train them.

Caron, Bojanowski, Joulin, Douze, "Deep Clustering for Unsupervised Learning of Visual Features",
ECCV 2018, arXiv 1807.05520; settings of the released code, main.py of facebookresearch/deepcluster.
AlexNet with batch normalisation on ImageNet: 37.88 top-1 by a linear probe [VISSL model zoo].

    bench pretrain deepcluster --norm batch --stem sobel --init fan-in --data folder:photos
    bench pretrain deepcluster --recipe small --data folder:photos

Before each epoch the features of all images are whitened and clustered anew, and a new classifier
of the clusters is drawn. An epoch sees every cluster equally often, however large it is: else all
images in one cluster would be a solution.
"""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.counter import Randomness, generator
from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.encoder import POOLED, Encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.errors import Degenerate, UsageError
from ssl_bench.progress import reached
from ssl_bench.training.augment import center_crop
from ssl_bench.training.batches import Images
from ssl_bench.training.collapse import dimensions
from ssl_bench.training.config import Recipe
from ssl_bench.training.heads import representation
from ssl_bench.training.pretext import Pretext, PretextConfig, Step
from ssl_bench.training.views import resized_crop
from ssl_bench.training.whitening import whitened

HIDDEN = 4096  # units of fc6 and fc7
PCA = 256  # principal directions that are clustered
ITERATIONS = 20  # of k-means
PASS = 256  # images at a time
DECAY = 1e-5


class DeepClusterConfig(PretextConfig):
    """The released code's, 200 epochs of ImageNet at a constant rate."""

    recipes: ClassVar[Mapping[str, Recipe]] = {
        "small": Recipe(1, {
            "arch": "torchvision:resnet18", "image_size": 64, "steps": 7_400, "clusters": 100,
        })
    }  # fmt: skip
    steps: int = Field(default=1_000_912, ge=1, description="updates; 200 epochs of ImageNet")
    batch_size: int = Field(default=256, ge=1, description="images per update over all devices")
    lr: float = Field(default=0.05, gt=0, le=1e30, description="SGD's learning rate at the start")
    clusters: int = Field(default=10_000, ge=2, description="k, groups that images are put into")
    hidden: int | None = Field(
        default=None,
        ge=0,
        description="units of fc6 and fc7 behind the encoder, 0: none; unset: 4096 times the width "
        "on maps, 0 on a network's pooled representation",
    )


def pseudo_labels(features: np.ndarray, clusters: int, draw: torch.Generator) -> np.ndarray:
    """int64 (N,): the cluster of each row of float32 (N, D), from 0; some may be empty.

    k-means from `clusters` rows that `draw` chooses, on whitened rows of unit length. DataError for
    rows that are all equal, or not finite.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    unit, _ = whitened(features, PCA)
    if not unit.shape[1]:
        raise Degenerate(
            "deepcluster: the features of all images are the same or not finite: lower --lr"
        )
    chosen = torch.randperm(len(unit), generator=draw)[:clusters].numpy()
    # Threads add up in any order: in 64 bit that moves no label from one run to the next.
    unit = unit.astype(np.float64)
    kmeans: Any = KMeans  # typed by its defaults, which are words
    means = kmeans(clusters, init=unit[chosen], n_init=1, max_iter=ITERATIONS, tol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of images that are the same
        return means.fit(unit).labels_.astype(np.int64)


def visits_of(labels: Tensor, draw: torch.Generator) -> Tensor:
    """int64 (N,): images in an order in which every cluster has equally many places, or one more.

    Of a cluster with fewer images than places, all are visited equally often, or once more.
    """
    _, labels = labels.unique(return_inverse=True)  # without those that are empty
    sizes = labels.bincount()
    shuffled = torch.randperm(len(labels), generator=draw)
    sorted_ = shuffled[labels[shuffled].argsort(stable=True)]  # each cluster's, in a random order
    starts = sizes.cumsum(0) - sizes
    places = torch.arange(len(labels))
    order = torch.randperm(len(sizes), generator=draw)  # which clusters have one more
    cluster, turn = order[places % len(sizes)], places // len(sizes)
    return sorted_[starts[cluster] + turn % sizes[cluster]]


class DeepCluster(Pretext):
    """An encoder, two hidden layers on maps, and a classifier of clusters that lasts an epoch."""

    Config = DeepClusterConfig
    version = 1
    labels: Tensor
    visits: Tensor

    def __init__(
        self, config: DeepClusterConfig, encoder: Encoder, normalization: Normalization
    ) -> None:
        super().__init__(config, encoder, normalization)
        # pool5 of AlexNet, `pooled` of a ResNet
        self.layer, self.size = representation(encoder, config.image_size)
        hidden = config.hidden
        if hidden is None:
            hidden = 0 if self.layer == POOLED else max(1, round(HIDDEN * config.width))
        self.fc6 = self.fc7 = None
        if hidden:
            self.fc6, self.fc7 = nn.Linear(self.size, hidden), nn.Linear(hidden, hidden)
            for name, layer in (("fc6", self.fc6), ("fc7", self.fc7)):
                initialize(layer, config.init, config.seed, name)
            self.size = hidden
        self.classifier = nn.Linear(self.size, config.clusters)

    def prepare(self, images: int) -> None:
        """A cluster of each image, and which images an epoch visits."""
        if 0 < images < self.config.clusters:
            raise UsageError(
                f"--clusters {self.config.clusters} is more than the {images} training images"
            )
        self.register_buffer("labels", torch.zeros(images, dtype=torch.int64))
        self.register_buffer("visits", torch.arange(images))

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """SGD; the classifier, which is drawn anew each epoch, learns without momentum."""
        last = [*self.classifier.parameters()]
        others = [w for w in self.parameters() if all(w is not own for own in last)]
        groups = [{"params": others, "momentum": 0.9}, {"params": last}]
        self.sgd = torch.optim.SGD(groups, self.config.lr, weight_decay=DECAY)
        return [self.sgd]

    def between(self, store: Images, epoch: int) -> None:
        """New clusters by the features of central crops, and a new classifier of them."""
        self.eval()
        device, size, seed = self.labels.device, self.config.image_size, self.config.seed
        rows = np.empty((len(store), self.size), np.float32)
        for part in np.split(np.arange(len(store)), range(PASS, len(store), PASS)):
            crops = center_crop(store.batch(part)["images"].to(device), size)
            rows[part] = self._represented(self.normalization.apply(crops)).float().cpu().numpy()
            reached(int(part[-1]), len(store), "images")
        draw = generator(seed, "clusters", epoch)
        labels = torch.from_numpy(pseudo_labels(rows, self.config.clusters, draw))
        self.labels.copy_(labels)
        self.visits.copy_(visits_of(labels, draw))
        weight, bias = self.classifier.parameters()
        # Not by `initialize`: several devices wrap the layer, and it would have another name.
        weight.copy_(0.01 * torch.randn(weight.shape, generator=generator(seed, "top", epoch)))
        bias.zero_()

    def _represented(self, pixels: Tensor, random: Randomness | None = None) -> Tensor:
        """(B, 3, S, S) -> (B, D), before the last ReLU; with `random`, half of all units drop."""
        found = self.encoder(pixels, [self.layer])[self.layer].flatten(1)
        if self.fc6 is None or self.fc7 is None:
            return found
        found = random.dropout(found, 0.5, "fc6") if random else found
        found = F.relu(self.fc6(found))
        return self.fc7(random.dropout(found, 0.5, "fc7") if random else found)

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """Cross-entropy over the clusters, equation 1, and how many are right, in percent."""
        crops = resized_crop(images, self.config.image_size, step.random, mirrored=0.5)
        features = self._represented(self.normalization.standardize(crops), step.random)
        # A representation of a library is what its own classifier sees: no ReLU belongs behind it.
        guessed = self.classifier(features if self.fc7 is None else F.relu(features))
        truth = self.labels[step.indices]
        loss = F.cross_entropy(guessed, truth)
        step.update(self.sgd, loss)
        right = 100 * (guessed.argmax(1) == truth).float().mean()
        with torch.no_grad():
            used = dimensions(features)
        return {"loss": loss.detach(), "accuracy": right, "dimensions": used}
