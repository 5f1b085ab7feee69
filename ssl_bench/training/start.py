"""Training that starts from a finished run's encoder, in place of weights that are drawn.

bench pretrain kmeans-init --data folder:photos
bench pretrain context-encoder --start kmeans-init --data folder:photos
bench pretrain random --start kmeans-init --data folder:photos      # its floor in tables
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ssl_bench.data.normalization import Normalization
from ssl_bench.encoders.build import EncoderSpec
from ssl_bench.encoders.weights import load_encoder, weights_digest
from ssl_bench.errors import DataError, UsageError
from ssl_bench.records.record import PretrainRecord
from ssl_bench.records.workspace import find_run, folder_of, read_records


@dataclass(frozen=True)
class Start:
    """The run whose encoder a training starts from."""

    run: PretrainRecord
    path: Path

    @property
    def digest(self) -> str:
        """Of its weights, by its record."""
        return self.run.details.encoder.digest

    def weights(self) -> Mapping[str, Tensor]:
        """Raises DataError for weights that are not those of the record."""
        encoder, _ = load_encoder(self.path)
        weights = encoder.state_dict()
        if weights_digest(weights) != self.digest:
            raise DataError(f"{self.path} is not the file that its record names: pretrain again")
        return weights

    @property
    def reference(self) -> str:
        """`METHOD@KEY`."""
        return f"{self.run.method}@{self.run.key}"


def find_start(workspace: Path, text: str, spec: EncoderSpec, seed: int) -> Start:
    """METHOD@KEY: that run; METHOD: its newest one of this seed with this network.

    Raises UsageError where there is none, or its network or normalisation is another. Its record
    is enough: a suite that was brought here without weights is read all the same.
    """
    run = find_run(workspace, text) if "@" in text else _newest(workspace, text, spec, seed)
    if different := _different(run.details.encoder.spec, spec):
        raise UsageError(
            f"--start {text}: {run.method}@{run.key[:12]} has another {' and '.join(different)}"
        )
    return Start(run, folder_of(workspace, run) / "encoder.safetensors")


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
    names = sorted((own.keys() | wanted.keys()) - {"image_size", "normalization"})
    found = [name for name in names if own.get(name) != wanted.get(name)]
    standard = Normalization.model_validate(own["normalization"])
    return found if standard.is_near(spec.normalization) else [*found, "normalization"]
