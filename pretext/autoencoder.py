"""Autoencoder: the context encoder's network reconstructing its whole input, nothing masked.

The paper's baseline (Pathak et al. 2016, table 2): 53.8 % mAP on VOC07 after fine-tuning, where
random weights reach 53.3 and the context encoder 56.5.

    bench pretrain autoencoder --data folder:photos --preview
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from pretext.context_encoder import reconstruct, reconstruction_layers
from ssl_bench.counter import Randomness
from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.training.augment import center_crop, random_crop_flip
from ssl_bench.training.pretext import Pretext, PretextConfig, Step


class Autoencoder(Pretext):
    """Reconstruct the image through the bottleneck."""

    Config = PretextConfig
    version = 1
    baseline = 1

    def __init__(
        self, config: PretextConfig, encoder: Encoder, normalization: Normalization
    ) -> None:
        super().__init__(config, encoder, normalization)
        layers = reconstruction_layers(config, encoder)
        self.channelwise, self.convolution, self.decoder = layers

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam, as for the context encoder."""
        self.adam = torch.optim.Adam(self.parameters(), lr=self.config.lr, fused=True)
        return [self.adam]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """L2 over all pixels."""
        crops = random_crop_flip(images, self.config.image_size, step.random).contiguous()
        x = self.normalization.apply(crops)
        loss = F.mse_loss(reconstruct(self, x, step.random), x)
        step.update(self.adam, loss)
        return {"loss": loss.detach()}

    @torch.no_grad()
    def preview(self, images: Tensor, random: Randomness) -> Mapping[str, Tensor]:
        """Rows of pictures: input and reconstruction."""
        x = self.normalization.apply(center_crop(images, self.config.image_size))
        rows = {"input": x, "reconstruction": reconstruct(self, x, None)}
        return {title: self.normalization.invert(row) for title, row in rows.items()}
