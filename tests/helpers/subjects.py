"""Small encoders to evaluate."""

from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.build import EncoderSpec, build_encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.evaluation.harness import Subject


def subject(
    normalization: Normalization,
    *layers: str,
    arch: str = "alexnet",
    width: float = 0.1,
    size: int = 64,
) -> Subject:
    """Starting weights of unit scale, always the same."""
    spec = EncoderSpec(arch=arch, image_size=size, width=width, normalization=normalization)
    encoder = build_encoder(spec)
    initialize(encoder, "fan-in", 0, "encoder")
    return Subject(encoder, spec, layers)
