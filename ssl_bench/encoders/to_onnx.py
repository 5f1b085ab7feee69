"""An encoder's layers as a network in ONNX, checked against the encoder by onnxruntime."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ssl_bench.encoders.encoder import POOLED, Encoder, evaluating
from ssl_bench.encoders.from_onnx import SPEC, OnnxEncoder
from ssl_bench.encoders.spec import EncoderSpec
from ssl_bench.errors import DataError, UsageError, extra, plain
from ssl_bench.files import written_at_once

EQUAL = 1e-4  # of a layer's largest value: float32 sums in another order


class _Layers(nn.Module):
    """Maps as a tuple, `pooled` as (B, C): what a graph can give."""

    def __init__(self, encoder: Encoder, layers: Sequence[str]) -> None:
        super().__init__()
        self.encoder, self.layers = encoder, list(layers)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.encoder(images, self.layers)
        return tuple(maps[k].flatten(1) if k == POOLED else maps[k] for k in self.layers)


def export_onnx(encoder: Encoder, spec: EncoderSpec, layers: Sequence[str], path: Path) -> float:
    """Write a graph from normalised images, float32 (B, 3, S, S), to these layers; B may vary.

    The outputs have the layers' names; `pooled` is (B, C). The spec stands in the metadata, so that
    `onnx:FILE` knows image size and normalisation. Returns the largest deviation of onnxruntime
    from the encoder, as a share of the layer's largest value. Raises UsageError for a network that
    cannot be written, DataError where the deviation is above 1e-4.
    """
    with extra("onnx"):  # of which torch's exporter would ask in a traceback
        import onnxscript  # noqa: F401  # pyright: ignore[reportMissingImports]

    encoder.check_layers(layers)
    images = torch.randn(
        2, 3, spec.image_size, spec.image_size, generator=torch.Generator().manual_seed(0)
    )
    with evaluating(encoder):
        try:
            program = torch.onnx.export(
                _Layers(encoder, layers).eval(), (images,), input_names=["images"],
                output_names=list(layers), dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True, verbose=False,
            )  # fmt: skip
        except Exception as error:  # of whatever an exporter cannot write
            reason = plain(error)[:200]
            raise UsageError(f"{spec.arch} cannot be written as ONNX: {reason}") from error
        assert program is not None
        program.model.metadata_props[SPEC] = spec.model_dump_json()
        with written_at_once(path) as scratch:
            program.save(str(scratch), external_data=False)
        return _deviation(encoder, layers, path, images[:1])


@torch.no_grad()
def _deviation(encoder: Encoder, layers: Sequence[str], path: Path, images: Tensor) -> float:
    """On a batch of another size than the graph was traced with."""
    batch = torch.cat([images, images.flip(3), images.flip(2)])
    expected, found = encoder(batch, list(layers)), OnnxEncoder(path, path.name)(batch, layers)
    worst = max(
        float((found[k] - expected[k]).abs().max() / expected[k].abs().max().clamp(min=1e-12))
        for k in layers
    )
    if not worst <= EQUAL:
        path.unlink()
        raise DataError(f"onnxruntime deviates from the encoder by {worst:.1e}: nothing is kept")
    return worst
