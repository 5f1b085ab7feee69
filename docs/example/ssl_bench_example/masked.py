"""Masked patches of a vision transformer, as in MAE (He et al., CVPR 2022), with a small decoder.

bench pretrain masked --data folder:photos --arch timm:vit_tiny_patch16_224 --image-size 96
"""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_bench.counter import generator
from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.build import learn_up_to
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.training.pretext import Pretext, PretextConfig, Step
from ssl_bench.training.schedule import Schedule
from ssl_bench.training.views import flip, resized_crop


class MaskedConfig(PretextConfig):
    """AdamW with warm-up, three quarters of the patches hidden."""

    arch: str = Field(
        default="timm:vit_tiny_patch16_224", description="encoder: a vision transformer of timm"
    )
    image_size: int = Field(default=224, ge=32, description="side of the network's input, px")
    schedule: Schedule = Field(default="cosine", description="the learning rate's course")
    hidden: float = Field(default=0.75, gt=0, lt=1, description="share of the patches not seen")


class Masked(Pretext):
    """The encoder sees a quarter of the patches; a decoder guesses the pixels of the others."""

    Config = MaskedConfig
    version = 1

    def __init__(
        self, config: MaskedConfig, encoder: Encoder, normalization: Normalization
    ) -> None:
        super().__init__(config, encoder, normalization)
        self.layer = encoder.maps[-1]
        learn_up_to(encoder, self.layer, config.image_size)  # not the norm behind the tokens
        channels, self.rows, _ = encoder.shape(self.layer, config.image_size)
        self.patch = config.image_size // self.rows
        self.decoder = Decoder(channels, self.rows**2, 3 * self.patch**2, config)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """AdamW."""
        self.adam = torch.optim.AdamW(
            (p for p in self.parameters() if p.requires_grad),
            self.config.lr, betas=(0.9, 0.95), weight_decay=0.05,
        )  # fmt: skip
        return [self.adam]

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """Squared error on the hidden patches, each normalised by its own mean and deviation."""
        view = resized_crop(images, self.config.image_size, step.random, scale=(0.2, 1.0))
        pixels = self.normalization.standardize(flip(view, step.random))
        order = step.random.uniform("patches", self.rows**2).argsort(1)
        seen = round(self.rows**2 * (1 - self.config.hidden))
        keep, hidden = order[:, :seen], order[:, seen:]  # (B, K), (B, N − K)
        tokens = self.encoder(pixels, [self.layer], keep=keep)[self.layer][..., 0]  # (B, C, K)
        guessed = self.decoder(tokens.transpose(1, 2), keep, hidden)
        truth = F.unfold(pixels, self.patch, stride=self.patch).transpose(1, 2)  # (B, N, 3·p²)
        truth = truth.gather(1, hidden[..., None].expand(-1, -1, truth.shape[2]))
        truth = F.layer_norm(truth, truth.shape[2:])
        loss = (guessed - truth).square().mean()
        step.update(self.adam, loss)
        return {"loss": loss.detach()}


class Decoder(nn.Module):
    """One transformer block over seen and hidden tokens, and a linear layer to pixels."""

    def __init__(self, channels: int, patches: int, pixels: int, config: PretextConfig) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(
            channels, 4, 4 * channels, dropout=0, batch_first=True, norm_first=True
        )
        self.block, self.out = block, nn.Linear(channels, pixels)
        initialize(self, config.init, config.seed, "decoder")
        draw = generator(config.seed, "decoder places")
        self.places = nn.Parameter(0.02 * torch.randn(patches, channels, generator=draw))
        self.mask = nn.Parameter(torch.zeros(channels))

    def forward(self, tokens: Tensor, keep: Tensor, hidden: Tensor) -> Tensor:
        """(B, K, C) at places (B, K), and places (B, M) -> (B, M, pixels)."""
        seen, asked = tokens + self.places[keep], self.mask + self.places[hidden]
        return self.out(self.block(torch.cat([seen, asked], 1))[:, keep.shape[1] :])
