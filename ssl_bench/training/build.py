"""A pretext by name, with its starting weights or those of a finished run."""

from collections.abc import Mapping
from pathlib import Path

import torch

from ssl_bench import catalogue
from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.build import EncoderSpec, build_encoder
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.init import initialize
from ssl_bench.encoders.weights import build_shapes, load_strictly
from ssl_bench.errors import DataError, UsageError
from ssl_bench.files import file_digest
from ssl_bench.records.record import PretrainRecord
from ssl_bench.training.pretext import EncoderConfig, Pretext

PLAIN = Normalization(mean=(0, 0, 0), std=(1, 1, 1))


def build_pretext(
    method: str,
    config: EncoderConfig,
    normalization: Normalization,
    images: int = 0,
    start: Mapping[str, torch.Tensor] | None = None,
) -> tuple[Pretext, EncoderSpec]:
    """A pretext around an encoder with the starting weights of (seed, init, arch, width).

    Every method gets the same ones: the random row of a table is where the others began. With
    `init` own, they are what the constructor draws from torch's generator on the CPU. `images` is
    the number of those that it is trained on. `start` are weights of a run to begin from instead:
    before a pretext copies its encoder.
    """
    spec = config.spec(normalization)
    torch.manual_seed(config.seed)
    encoder = build_encoder(spec)
    if config.init != "own":
        initialize(encoder, config.init, config.seed, "encoder")
    if start is not None:
        load_strictly(encoder, start, f"--start {config.start}")
    pretext = catalogue.pretext(method)(config, encoder, normalization)
    pretext.prepare(images)
    return pretext, spec


def exported(pretext: Pretext) -> Encoder:
    """The encoder that a pretext gives away. UsageError if it names something else."""
    found = dict(pretext.named_modules()).get(pretext.exported)
    if not isinstance(found, Encoder):
        raise UsageError(f"{type(pretext).__name__}.exported names no encoder: {pretext.exported}")
    return found


def open_pretext(record: PretrainRecord, folder: Path, *, bare: bool = False) -> Pretext:
    """The pretext of a finished run with its weights, on the CPU, in evaluation mode.

    A `bare` one has those it began from: it says what the pretext can do, as an imported run
    without weights does. Raises DataError for weights that are not those of the record.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        spec = EncoderSpec.model_validate(record.details.encoder.spec)
        config = catalogue.pretext(record.method).Config(**record.identity.config)
        build_shapes(config.spec(spec.normalization))
    except (ValueError, RuntimeError, TypeError) as error:
        raise DataError(f"{folder}: its record describes no pretext: remove it") from error
    pretext, _ = build_pretext(
        record.method, config, spec.normalization, record.details.images or 0
    )
    if bare:
        return pretext.eval()
    state: dict[str, torch.Tensor] = {}
    saved = ("encoder.safetensors", f"{pretext.exported}."), ("rest.safetensors", "")
    for name, prefix in saved:
        path = folder / name
        if name not in record.files:
            continue
        if not path.exists() or file_digest(path) != record.files[name]:
            raise DataError(
                f"{path} is not the file that its record names: remove {folder} and pretrain again"
            )
        try:
            state |= {prefix + key: tensor for key, tensor in load_file(path).items()}
        except SafetensorError as error:
            raise DataError(f"{path} is no safetensors file: remove {folder}") from error
    load_strictly(pretext, state, str(folder))
    return pretext.eval()
