"""A look at an encoder while it is trained: `bench pretrain METHOD --probe knn.lightly`.

The protocol's own code at its own settings, on a part of the *training* images whose labels the
training does not see: a fifth of each class is asked for, the others are what the probe learns
from. No test image is looked at, so who stops or tunes by the curve has not peeked. It is a curve
and no result: `bench knn` on the finished encoder is.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ssl_bench import catalogue
from ssl_bench.counter import generator
from ssl_bench.data.store.concat import Squares
from ssl_bench.data.store.squares import ImageStore
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.spec import EncoderSpec
from ssl_bench.errors import DataError, UsageError
from ssl_bench.evaluation.features import Features, extract
from ssl_bench.evaluation.harness import Probe
from ssl_bench.progress import say_once

IMAGES = 50_000  # of the training images at most, so that a look takes seconds
PARTS = 5  # of each class, one of which is asked for


@dataclass(frozen=True)
class _Some:
    """The images of a store at some places, for a pass."""

    store: ImageStore
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def images(self, which: slice) -> Tensor:
        return self.store.images(self.places[which])


@dataclass(frozen=True)
class OnlineProbe:
    """A probe of frozen features, asked every so many epochs; see training/probe.py."""

    name: str
    every: int
    harness: Any

    @classmethod
    def of(cls, name: str, every: int) -> Self:
        """That of an entry point. UsageError for one that is no probe of train and test."""
        kind: Any = catalogue.evaluation(name)
        if not issubclass(kind, Probe) or tuple(kind.splits) != ("train", "test"):
            raise UsageError(
                f"--probe {name}: not a probe of frozen features, which are asked while an encoder "
                "is trained; knn.lightly is one"
            )
        return cls(name, every, kind(kind.Config()))

    def check(self, store: Squares) -> None:
        """UsageError for images without a label each, and for fewer than two classes to ask for."""
        if not isinstance(store, ImageStore):
            raise UsageError(f"--probe {self.name} is for one set with labels, not for several")
        try:
            labels = store.labels
        except DataError as error:
            raise UsageError(f"--probe {self.name}: {error}") from error
        if len(np.unique(labels[parted(labels)[1]])) < 2:
            raise UsageError(
                f"--probe {self.name} needs two classes of {PARTS} training images at least"
            )

    def measure(self, encoder: Encoder, spec: EncoderSpec, store: Squares) -> Mapping[str, float]:
        """The protocol's headline at its usual layer, by the probe's name.

        Nothing where its features cannot be measured, as of an encoder that has collapsed, which is
        said: a look stops no training.
        """
        assert isinstance(store, ImageStore)
        own = deepcopy(encoder)  # a pass freezes and moves what it is given
        own.requires_grad_(False)
        (layer,), dimensions = self.harness.usual_layers(own), self.harness.config.dimensions
        labels, parts = store.labels, parted(store.labels)
        places = np.sort(np.concatenate(parts))
        try:
            wanted = {layer: [dimensions]}
            rows = extract(own, spec, _Some(store, places), wanted, title="")[layer, dimensions]
            splits = {
                split: Features(
                    rows.part(np.searchsorted(places, part)), labels[part], store.index.classes
                )
                for split, part in zip(("train", "test"), parts, strict=True)
            }
            score = self.harness.score(self.harness.probe(layer, splits).predictions)
        except DataError as error:
            say_once(f"warning: --probe {self.name}: {error}")
            return {}
        return {self.name: score[self.harness.metrics[0].name]}


def parted(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (learnt from, asked for), ascending, of int64 (N,): always the same of equal labels.

    One of PARTS images of a class is asked for, so each class that is has four others at least.
    """
    drawn = torch.randperm(len(labels), generator=generator("online probe"))[:IMAGES].numpy()
    drawn = drawn[np.argsort(labels[drawn], kind="stable")]  # class by class, in a random order
    _, starts, counts = np.unique(labels[drawn], return_index=True, return_counts=True)
    turn = np.arange(len(drawn)) - np.repeat(starts, counts)
    asked = turn % PARTS == PARTS - 1
    return np.sort(drawn[~asked]), np.sort(drawn[asked])
