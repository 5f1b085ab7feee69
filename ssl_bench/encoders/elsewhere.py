"""Encoders that no record can build again by name alone: which scheme opens which.

file:encoder.py:build        what a function in a Python file builds
hub:FOLDER:ENTRY             what an entry point of a folder with a hubconf.py builds, torch.hub's
hf:ORG/NAME, hf:FOLDER       a vision model of transformers
onnx:FILE                    a network in ONNX, which cannot be trained
"""

from collections.abc import Callable

from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.from_file import open_file, open_hub
from ssl_bench.encoders.from_onnx import open_onnx
from ssl_bench.encoders.from_transformers import open_transformers
from ssl_bench.encoders.spec import EncoderSpec

SCHEMES: dict[str, Callable[[str, int | None], tuple[Encoder, EncoderSpec]]] = {
    "file": open_file, "hub": open_hub, "hf": open_transformers, "onnx": open_onnx,
}  # fmt: skip
RUN = ("file", "hub")  # these run code of the place that they name
FORMS = ("file:encoder.py:build", "hub:FOLDER:ENTRY", "hf:ORG/NAME", "onnx:FILE")


def scheme_of(text: str) -> str | None:
    """`file` of `file:encoder.py:build`; None for a run, a weights file, a library's model."""
    scheme, colon, _ = text.partition(":")
    return scheme if colon and scheme in SCHEMES else None


def open_elsewhere(text: str, image_size: int | None = None) -> tuple[Encoder, EncoderSpec]:
    """The encoder that a reference of one of the `SCHEMES` names, on the CPU, and its spec.

    `arch` in the spec names it without its path; what the weights' digest does not cover has one of
    its own there, behind `@`. Raises UsageError for what is not there, or gives no maps.
    """
    return SCHEMES[text.partition(":")[0]](text, image_size)
