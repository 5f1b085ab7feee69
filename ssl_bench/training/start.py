"""Training that starts from a finished run's encoder, in place of weights that are drawn.

bench pretrain kmeans-init --data folder:photos
bench pretrain context-encoder --start kmeans-init --data folder:photos
bench pretrain random --start kmeans-init --data folder:photos      # its floor in tables
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ssl_bench.encoders.build import EncoderSpec
from ssl_bench.encoders.weights import load_encoder, weights_digest
from ssl_bench.errors import DataError, UsageError
from ssl_bench.records.record import PretrainRecord
from ssl_bench.records.workspace import find_run, folder_of, read_records


@dataclass(frozen=True)
class Start:
    """The weights of the run that a training starts from, and their digest."""

    run: PretrainRecord
    weights: Mapping[str, Tensor]
    digest: str

    @property
    def reference(self) -> str:
        """`METHOD@KEY`."""
        return f"{self.run.method}@{self.run.key}"


def find_start(workspace: Path, text: str, spec: EncoderSpec, seed: int) -> Start:
    """METHOD@KEY: that run; METHOD: its newest one of this seed with this network.

    Raises UsageError where there is none, or its network or normalisation is another; DataError for
    weights that are not those of its record.
    """
    run = find_run(workspace, text) if "@" in text else _newest(workspace, text, spec, seed)
    path = folder_of(workspace, run) / "encoder.safetensors"
    encoder, own = load_encoder(path)
    if different := _different(own.plain(), spec):
        raise UsageError(
            f"--start {text}: {run.method}@{run.key[:12]} has another {' and '.join(different)}"
        )
    weights = encoder.state_dict()
    digest = weights_digest(weights)
    if digest != run.details.encoder.digest:
        raise DataError(f"{path} is not the file that its record names: pretrain again")
    return Start(run, weights, digest)


def _newest(workspace: Path, method: str, spec: EncoderSpec, seed: int) -> PretrainRecord:
    find_run(workspace, method)  # a typo is answered
    fitting = [
        run
        for run in read_records(workspace, "pretrain")
        if run.method == method and run.identity.config.get("seed") == seed
        if not run.identity.config.get("start") and not _different(run.details.encoder.spec, spec)
    ]
    if not fitting:
        raise UsageError(
            f"--start {method}: no run of it in {workspace} has this network, normalisation and "
            f"seed {seed}: `bench pretrain {method}` makes one, METHOD@KEY names any"
        )
    return fitting[-1]


def _different(own: Mapping[str, object], spec: EncoderSpec) -> list[str]:
    """What builds another network; sizes of images may differ."""
    wanted = spec.plain()
    names = sorted((own.keys() | wanted.keys()) - {"image_size"})
    return [name for name in names if own.get(name) != wanted.get(name)]
