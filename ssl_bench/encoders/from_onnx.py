"""A network in ONNX: `onnx:FILE`, run by onnxruntime on the CPU, for frozen evaluations only.

Its outputs are the layers: maps (B, C, h, w), and a vector (B, C), which is `pooled`. Of files that
`bench export-onnx` wrote, image size and normalisation are known; of others they are assumed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_bench.data.normalization import IMAGENET
from ssl_bench.encoders.encoder import POOLED, Encoder, check_maps, probe
from ssl_bench.encoders.libraries import local_path, refusal, say_assumed
from ssl_bench.encoders.spec import EncoderSpec
from ssl_bench.errors import UsageError, extra
from ssl_bench.files import file_digest, refuse_pointer

SPEC = "ssl_bench.encoder"  # the entry of a file's metadata that holds an EncoderSpec


class OnnxEncoder(Encoder):
    """What a file's network gives, without gradients; all of it runs, whatever is asked for."""

    trainable = False

    def __init__(self, path: Path, arch: str) -> None:
        super().__init__()
        with extra("onnx"):
            import onnxruntime  # pyright: ignore[reportMissingImports]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors; its warnings are of constants that it folds
        self.session: Any = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        shapes = [each.shape for each in inputs]
        images = len(shapes) == 1 and len(shapes[0]) == 4
        # A name in the place of the channels may stand for 3.
        if not images or (isinstance(shapes[0][1], int) and shapes[0][1] != 3):
            raise UsageError(f"{arch} takes inputs of {shapes}, not one of images (B, 3, S, S)")
        self._input = inputs[0].name
        self._sides: list[Any] = inputs[0].shape  # numbers, or names of what may vary
        self._type = np.float16 if inputs[0].type == "tensor(float16)" else np.float32
        vectors = [output.name for output in outputs if len(output.shape) == 2]
        self._outputs = {o.name: o.name for o in outputs if len(o.shape) == 4}
        self._outputs |= {POOLED: vectors[-1]} if vectors else {}
        self.layers = tuple(self._outputs)
        if not self.layers:
            raise UsageError(f"{arch} has no output that is a map (B, C, h, w) or a vector (B, C)")
        # Its weights are no tensors of ours: the file's digest stands among them for all.
        beside = path.with_name(f"{path.name}.data")  # weights above 2 GB
        digests = "".join(file_digest(file) for file in (path, beside) if file.exists())
        self.register_buffer("sha256", torch.tensor([*bytes.fromhex(digests)], dtype=torch.uint8))

    @property
    def own_size(self) -> int | None:
        """Side of the images that the file is made for, px; None: any."""
        return self._sides[-1] if isinstance(self._sides[-1], int) else None

    @property
    def own_spec(self) -> str | None:
        """The EncoderSpec in JSON of a file that we wrote."""
        return self.session.get_modelmeta().custom_metadata_map.get(SPEC)

    def forward(
        self, images: Tensor, layers: Sequence[str], keep: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Normalised float (B, 3, S, S) -> {layer: (B, C, h, w)} on the images' device."""
        self.check_layers(layers)
        self.check_keep(keep, images)
        wanted = [self._outputs[layer] for layer in layers]
        pixels = images.detach().float().cpu().numpy().astype(self._type)
        # Many files are made for one image at a time, or for another number: blank ones fill it up.
        fixed = self._sides[0] if isinstance(self._sides[0], int) else len(pixels)
        blank = np.zeros((-len(pixels) % fixed, *pixels.shape[1:]), self._type)
        filled = np.concatenate([pixels, blank])
        batches = np.split(filled, len(filled) // fixed)
        runs = [self.session.run(wanted, {self._input: batch}) for batch in batches]
        joined = [np.concatenate(maps)[: len(pixels)] for maps in zip(*runs, strict=True)]
        found = [torch.from_numpy(each.astype(np.float32)).to(images.device) for each in joined]
        maps = dict(zip(layers, found, strict=True))
        return {k: x[..., None, None] if k == POOLED else x for k, x in maps.items()}

    def __deepcopy__(self, _memo: Any) -> "OnnxEncoder":
        return self  # it never changes, and a session cannot be copied


def open_onnx(text: str, image_size: int | None = None) -> tuple[Encoder, EncoderSpec]:
    """The network of `onnx:FILE`. UsageError for a file that is not there, or no such network."""
    path = local_path(text.removeprefix("onnx:"))
    if not path.is_file():
        raise UsageError(f"{text}: there is no file '{path}': onnx:FILE")
    refuse_pointer(path)
    name = f"onnx:{path.name}"
    with refusal(name, image_size or 224, image_size or 224):
        encoder = OnnxEncoder(path, name)
        spec = _spec_of(encoder, name, image_size)
        check_maps(probe(encoder, spec.image_size), (2, 3, spec.image_size, spec.image_size), name)
    return encoder, spec


def _spec_of(encoder: OnnxEncoder, name: str, image_size: int | None) -> EncoderSpec:
    """What the file says of itself, or what is assumed, which is said."""
    if encoder.own_spec:
        own = EncoderSpec.model_validate_json(encoder.own_spec)
    else:
        size = encoder.own_size or image_size
        say_assumed(name, normalization=True, image_size=size is None)
        own = EncoderSpec(arch=name, image_size=size or 224, normalization=IMAGENET)
    size = encoder.own_size or image_size or own.image_size
    if image_size not in (None, size):
        raise UsageError(f"it is made for {size} px")
    return own.model_copy(update={"arch": name, "image_size": size, "width": 1.0, "norm": "own",
                                  "stem": "own", "bottleneck": None})  # fmt: skip
