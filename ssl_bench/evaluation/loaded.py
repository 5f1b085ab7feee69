"""An encoder to use outside of the benchmark: `ssl_bench.load_encoder(reference)`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ssl_bench.data.images import fit_square, rgb, upright
from ssl_bench.data.store.squares import stored_size
from ssl_bench.encoders.encoder import Encoder, evaluating
from ssl_bench.encoders.spec import EncoderSpec
from ssl_bench.evaluation.reference import Reference
from ssl_bench.training.augment import center_crop


class LoadedEncoder(nn.Module):
    """An encoder with its transform: photographs in, features by layer out, as in evaluations.

    `layers` are its layers, the last one its representation; `spec` says image size and
    normalisation, `name` what tables call it. Move it with `to(device)`, train its weights through
    `forward`.
    """

    def __init__(self, encoder: Encoder, spec: EncoderSpec, name: str) -> None:
        super().__init__()
        self.encoder, self.spec, self.name = encoder, spec, name
        self.layers = encoder.layers

    def transform(self, image: Image.Image) -> Tensor:
        """A photograph of any size and mode -> normalised float32 (3, S, S).

        As the evaluations' test images: turned as its EXIF says, in RGB, its short side resized to
        256/227 of S, the central S×S, normalised with the encoder's own mean and deviation.
        """
        image.load()  # once: it takes what EXIF says from a TIFF as it turns it
        turned = Image.fromarray(upright(np.asarray(rgb(image)), image))
        square = fit_square(turned, stored_size(self.spec.image_size))
        pixels = torch.from_numpy(square.copy()).permute(2, 0, 1)[None]
        return self.spec.normalization.apply(center_crop(pixels, self.spec.image_size))[0]

    def forward(self, images: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Of `transform`, float32 (B, 3, S, S) -> {layer: (B, C, h, w)}, with gradients.

        `layers` in the order of the network's; None: the last one, (B, C, 1, 1) if it is `pooled`.
        Raises UsageError for a layer that it lacks.
        """
        return self.encoder(images, list(self.layers[-1:] if layers is None else layers))

    @torch.no_grad()
    def encode(self, images: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """The same in eval mode and without gradients, on the encoder's own device."""
        weight = next(iter(self.encoder.state_dict().values()))
        with evaluating(self.encoder):
            return self(images.to(weight.device), layers)


def load_encoder(
    reference: str | Path,
    workspace: str | Path = "runs",
    *,
    weights: str | Path | None = None,
    image_size: int | None = None,
) -> LoadedEncoder:
    """The encoder that a reference names, on the CPU, with its transform.

    `reference` is what `--encoder` takes: a method or METHOD@KEY of the `workspace`, a weights file
    or the folder of a run, `timm:NAME`, `torchvision:NAME`, `hf:ORG/NAME`, `onnx:FILE`,
    `hub:FOLDER:ENTRY`, `file:encoder.py:build`; code that it names is run. `weights` and
    `image_size` are `--weights` and `--image-size`. Raises UsageError for what is not there,
    DataError for weights that do not fit.
    """
    found = Reference(
        str(reference), Path(workspace), weights=str(weights) if weights else None,
        image_size=image_size, run_file=True,
    )  # fmt: skip
    found.check_weights()
    return LoadedEncoder(found.encoder, found.spec, found.name)
