"""What became of an encoder's layers: effective rank, dead units, how far the weights moved.

Numbers to find causes with, not to rank methods by: they see no labels, and stand in no record.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ssl_bench import catalogue
from ssl_bench.encoders.build import EncoderSpec, weights_of
from ssl_bench.encoders.encoder import Encoder, check_maps, evaluating
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.errors import DataError
from ssl_bench.evaluation.features import Pictures
from ssl_bench.records.record import PretrainRecord
from ssl_bench.training.augment import center_crop
from ssl_bench.training.build import build_pretext
from ssl_bench.training.start import find_start

BATCH = 64


@dataclass(frozen=True)
class LayerDiagnosis:
    """One layer: `rank` of at most `channels`, `dead` and `moved` shares; None: no start is known.

    `moved` is of the weights that the layer has beyond the layer before it.
    """

    layer: str
    channels: int
    rank: float
    dead: float
    moved: float | None


def effective_rank(features: np.ndarray) -> float:
    """exp(−Σ p ln p) with p the singular values of (N, D) by their sum; 0 of zeros alone.

    Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007. The
    features are not centred, as there: k equal singular values give k.
    """
    values = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    if not values.any():
        return 0.0
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def diagnose(
    encoder: Encoder, spec: EncoderSpec, images: Pictures, count: int, start: Encoder | None = None
) -> list[LayerDiagnosis]:
    """Each layer over the first `count` images, central crops; `start` are the weights before."""
    pooled, active = activity(encoder, spec, images, count)
    moved = distances(start, encoder, spec.image_size) if start else {}
    return [
        LayerDiagnosis(
            layer,
            pooled[layer].shape[1],
            effective_rank(pooled[layer]),
            float((~active[layer]).mean()),
            moved.get(layer),
        )
        for layer in encoder.layers
    ]


@torch.no_grad()
def activity(
    encoder: Encoder, spec: EncoderSpec, images: Pictures, count: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """By layer: maps averaged over places, float32 (N, C); channels ever above 0, bool (C,)."""
    rows: dict[str, list[Tensor]] = {layer: [] for layer in encoder.layers}
    active: dict[str, np.ndarray] = {}
    count = min(count, len(images))
    with evaluating(encoder):
        for first in range(0, count, BATCH):
            pixels = images.images(slice(first, min(first + BATCH, count)))
            batch = center_crop(pixels, spec.image_size)
            maps = encoder(spec.normalization.apply(batch), encoder.layers)
            check_maps(maps, batch.shape, spec.arch)
            for layer, values in maps.items():
                rows[layer].append(values.float().mean((2, 3)))
                above = (values > 0).any(3).any(2).any(0).numpy()
                active[layer] = active.get(layer, False) | above
    return {layer: torch.cat(found).numpy() for layer, found in rows.items()}, active


def distances(start: Encoder, encoder: Encoder, size: int) -> dict[str, float]:
    """‖w − w₀‖ / ‖w₀‖ of each layer's own weights and biases, by layer; layers without any lack.

    A layer's own are those that its map depends on and the maps of no layer before it.
    """
    before = {name: weight.detach() for name, weight in start.named_parameters()}
    names = {id(weight): name for name, weight in encoder.named_parameters()}
    found: dict[str, float] = {}
    seen: set[str] = set()
    for layer in encoder.layers:
        own = {names[id(weight)]: weight for weight in weights_of(encoder, layer, size)}
        new = [name for name in own if name not in seen]
        seen.update(new)
        steps = sum(float((own[n].detach() - before[n]).double().square().sum()) for n in new)
        lengths = sum(float(before[n].double().square().sum()) for n in new)
        if lengths:
            found[layer] = (steps / lengths) ** 0.5
    return found


def starting_encoder(run: PretrainRecord, spec: EncoderSpec, workspace: Path) -> Encoder:
    """The weights that a run began from, drawn again, or its parent's.

    Raises DataError if the record names others.
    """
    config = catalogue.pretext(run.method).Config(**run.identity.config)
    parent = run.details.parent
    start = find_start(workspace, parent, spec, config.seed).weights() if parent else None
    images = run.details.images or 0
    pretext, _ = build_pretext(run.method, config, spec.normalization, images, start)
    if weights_digest(pretext.encoder.state_dict()) != run.details.encoder.start:
        raise DataError(
            f"the starting weights of {run.method}@{run.key[:12]} are drawn otherwise here: how "
            "far its weights moved is not known"
        )
    return pretext.encoder


def lines_of(found: Sequence[LayerDiagnosis]) -> Iterator[str]:
    """A line for each layer, for a person."""
    yield f"{'layer':12} {'channels':>8} {'effective rank':>15} {'dead units':>11} {'moved':>8}"
    for one in found:
        moved = "–" if one.moved is None else f"{one.moved:.3g}"
        yield f"{one.layer:12} {one.channels:8,} {one.rank:15.1f} {one.dead:11.1%} {moved:>8}"
