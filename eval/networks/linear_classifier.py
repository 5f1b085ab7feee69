"""A network for classification: an encoder and one fresh linear layer behind it."""

import torch
from torch import Tensor, nn

from ssl_bench.counter import generator
from ssl_bench.encoders.build import learn_up_to
from ssl_bench.encoders.encoder import Encoder, evaluating
from ssl_bench.evaluation.features import pool


class LinearClassifier(nn.Module):
    """An encoder up to one layer, average-pooled, and a linear head."""

    def __init__(self, encoder: Encoder, layer: str, classes: int, dimensions: int) -> None:
        super().__init__()
        self.encoder, self.layer, self.dimensions = encoder, layer, dimensions
        self.head = nn.LazyLinear(classes)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised (B, 3, S, S) -> logits (B, classes)."""
        maps = self.encoder(images, [self.layer])[self.layer]
        return self.head(pool(maps, self.dimensions))


def new_classifier(
    encoder: Encoder, layer: str, size: int, classes: int, dimensions: int, seed: int
) -> LinearClassifier:
    """For images of `size` px. All of it learns; the head starts at N(0, 0.01²)."""
    network = LinearClassifier(encoder, layer, classes, dimensions)
    learn_up_to(encoder, layer, size)
    with evaluating(network), torch.no_grad():  # a blank image moves no statistics of batches
        network(torch.zeros(1, 3, size, size))  # gives the lazy head its size
    nn.init.normal_(network.head.weight, std=0.01, generator=generator(seed, "head"))
    nn.init.zeros_(network.head.bias)
    return network
