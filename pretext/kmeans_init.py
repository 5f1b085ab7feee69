"""K-means initialisation: filters clustered from patches of the training images, no training.

Krähenbühl, Doersch, Donahue, Darrell, "Data-dependent Initializations of Convolutional Neural
Networks", ICLR 2016 (arXiv 1511.06856), with the details of the authors' code (philkr/magic_init):
layer by layer, patches of the layer's own input are whitened and clustered (as Coates and Ng,
"Learning Feature Representations with K-means", 2012, did for one layer), the centroids become the
layer's filters, and `ssl_bench.encoders.rescale` sets the scales of channels and layers.

    bench pretrain kmeans-init --data folder:photos

At 227 px it takes half a minute of one core, and 2.3 GB. Published: VOC07 fine-tuning 56.6 % mAP,
where the context encoder has 56.5 and random Gaussian weights 53.3 (Zhang et al., arXiv 1611.09842,
table 4).
"""

from collections.abc import Mapping

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.counter import Randomness, derive, epoch_order, generator
from ssl_bench.data.normalization import Normalization
from ssl_bench.data.store.concat import Squares
from ssl_bench.encoders.chain import Affine, chain_obstacle
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.rescale import rescale, top_of
from ssl_bench.errors import Degenerate, UsageError
from ssl_bench.progress import say
from ssl_bench.training.augment import random_crop_flip
from ssl_bench.training.pretext import EncoderConfig, Pretext
from ssl_bench.training.whitening import whitened


class KMeansConfig(EncoderConfig):
    """The settings of the k-means initialisation; `init` has no say, all filters are replaced."""

    images: int = Field(
        default=160, ge=1, description="training images looked at; magic_init's 10 batches of 16"
    )
    patches: int = Field(
        default=50_000, ge=2, description="patches clustered for a layer's filters, at most"
    )


class KMeansInit(Pretext):
    """Every filter is the centroid of a cluster of what the layer sees."""

    Config = KMeansConfig
    version = 1

    def __init__(self, config: KMeansConfig, encoder: Encoder, normalization: Normalization):
        super().__init__(config, encoder, normalization)
        blank = torch.zeros(1, 3, config.image_size, config.image_size)
        obstacle = chain_obstacle(encoder, top_of(encoder), blank)
        if obstacle:
            raise UsageError(
                f"kmeans-init takes chains of convolutions, ReLU and pooling (alexnet, "
                f"torchvision:alexnet, timm:vgg11 …), not {config.arch}: {obstacle}"
            )

    def fit(self, store: Squares, device: torch.device) -> Mapping[str, float]:
        """Filters and scales from the store's images; returns `Rescaled.numbers`.

        All on the CPU, whatever `device` is: a GPU's convolutions do not give the same bits twice,
        and clustering makes other filters of that.
        """
        images = self._crops(store)
        done = rescale(
            self.encoder, images, self.config.arch,
            trained=False, seed=derive(self.config.seed, "rescale"), fill=self._fill,
        )  # fmt: skip
        return done.numbers()

    def _crops(self, store: Squares) -> Tensor:
        """Random crops of images that the seed chooses, normalised float (images, 3, S, S)."""
        count, seed = self.config.images, self.config.seed
        if count > len(store):
            raise UsageError(
                f"--images {count} is more than the {len(store)} training images: pass "
                f"--images {len(store)}"
            )
        chosen = store.images(epoch_order(seed, 0, len(store))[:count].numpy())
        random = Randomness(seed, 0, torch.arange(count))
        return self.normalization.apply(random_crop_flip(chosen, self.config.image_size, random))

    def _fill(self, name: str, layer: Affine, inputs: Tensor) -> None:
        """A convolution's filters from its input, float (B, C, h, w); group by group."""
        assert isinstance(layer, nn.Conv2d)  # a linear layer has no patches; no trunk runs one
        say(f"kmeans-init: filters of {name}")
        filters = layer.out_channels // layer.groups
        parts = inputs.chunk(layer.groups, dim=1)
        for group, part in enumerate(parts):
            key = (self.config.seed, name, group)
            patches = draw_patches(layer, part, self.config.patches, generator(*key, "patches"))
            different = len({row.tobytes() for row in patches})
            if different < filters:
                raise Degenerate(
                    f"kmeans-init: {name} finds {different} different patches for {filters} "
                    "filters: raise --images and --patches, or take images that show more"
                )
            made = kmeans_filters(patches, filters, derive(*key, "clusters") % 2**32)
            rows = slice(group * filters, (group + 1) * filters)
            layer.weight[rows] = torch.from_numpy(made).view_as(layer.weight[rows])


def draw_patches(layer: nn.Conv2d, inputs: Tensor, count: int, draw: torch.Generator) -> np.ndarray:
    """What the layer's filters see at up to `count` random places, none of them twice.

    (B, C, h, w), the channels of one group -> float32 (P, C·kh·kw), padding included.
    """
    (up, left), (kh, kw) = layer.padding, layer.kernel_size
    (sy, sx), (dy, dx) = layer.stride, layer.dilation
    padded = F.pad(inputs, (int(left), int(left), int(up), int(up)))
    windows = padded.unfold(2, dy * (kh - 1) + 1, sy).unfold(3, dx * (kw - 1) + 1, sx)
    windows = windows[..., ::dy, ::dx]  # (B, C, y, x, kh, kw), a view
    places = (len(inputs), windows.shape[2], windows.shape[3])
    chosen = torch.randperm(int(np.prod(places)), generator=draw)[:count]
    image, y, x = torch.unravel_index(chosen, places)
    return windows[image, :, y, x].flatten(1).numpy()


def kmeans_filters(patches: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Filters that tell clusters of patches apart: float32 (P, D) -> float32 (count, D).

    As magic_init: the patches are centred, projected on their `count` first principal directions,
    whitened and brought to length 1; k-means' centroids are taken back through the whitening, so
    that a filter's response to a patch is the product of centroid and whitened patch. The patches
    must not all be equal.
    """
    from sklearn.cluster import MiniBatchKMeans

    unit, whitening = whitened(patches, count)
    clusters = MiniBatchKMeans(count, batch_size=10 * count, n_init=3, random_state=seed)  # type: ignore[arg-type]
    clusters.fit(unit)
    return np.asarray(clusters.cluster_centers_, np.float32) @ whitening.T
