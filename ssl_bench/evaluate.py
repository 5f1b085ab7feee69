"""The job from encoder to record: one evaluation of several encoders at several layers."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ssl_bench import catalogue
from ssl_bench.data.store import ImageStore, open_store
from ssl_bench.encoders import (
    EncoderSpec,
    Normalization,
    build_encoder,
    load_encoder,
    weights_digest,
)
from ssl_bench.errors import DataError, UsageError
from ssl_bench.progress import say
from ssl_bench.records import (
    Record,
    Run,
    find_run,
    folder_of,
    read_records,
    write_predictions,
)
from ssl_bench.runtime import Runtime, device_name, resolve_precision
from ssl_bench.task import Evaluation, Outcome, Subject, TrainConfig


class Reference:
    """An encoder to evaluate: a workspace run, a weights file, or a library's pretrained model."""

    def __init__(self, text: str, workspace: Path) -> None:
        self.run: Record | None = None
        if text.partition(":")[0] in ("timm", "torchvision"):
            self.name = text
            self.encoder, self.spec = _pretrained(text)
        elif text.endswith(".safetensors") or "/" in text:
            path = Path(text).expanduser()
            if path.is_dir():  # a run's folder, as `bench pretrain` prints it
                path = path / "encoder.safetensors"
            if not path.exists():
                raise UsageError(f"there is no weights file {text}")
            self.name = path.stem if path.stem != "encoder" else path.parent.name
            self.encoder, self.spec = load_encoder(path)
        else:
            self.run = find_run(workspace, text)
            self.name = self.run.method
            weights = folder_of(workspace, self.run) / "encoder.safetensors"
            self.encoder, self.spec = load_encoder(weights)
        self.digest = weights_digest(self.encoder.state_dict())
        if self.run and self.digest != self.run.details["encoder"]["digest"]:
            raise DataError(
                f"the weights of {text} are not those that its record names: "
                f"remove {folder_of(workspace, self.run)} and pretrain again"
            )
        trained = self.run and "training" in self.run.details
        if self.run and trained and self.digest == self.run.details["encoder"]["start"]:
            say(f"warning: {text} equals its random initialisation")

    @property
    def identity(self) -> dict[str, Any]:
        """What of the encoder determines a number."""
        return {
            "run": self.run.key if self.run else self.name,
            "weights": self.digest,
            "spec": self.spec.model_dump(mode="json"),
        }


def _pretrained(text: str) -> tuple[Any, EncoderSpec]:
    """A library's model with its own weights, image size and normalisation."""
    imagenet = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    spec = EncoderSpec(arch=text, image_size=224, normalization=imagenet)
    try:
        if text.startswith("timm:"):
            import timm

            own = timm.get_pretrained_cfg(text.removeprefix("timm:"))
            if own is not None and own.input_size[1] == own.input_size[2]:
                norm = Normalization.model_validate({"mean": own.mean, "std": own.std})
                spec = EncoderSpec(arch=text, image_size=own.input_size[1], normalization=norm)
        return build_encoder(spec, pretrained=True), spec
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"the weights of {text} cannot be had ({type(error).__name__}): without a network, "
            "download them first into the library's cache"
        ) from error


def newest_of_each(workspace: Path) -> list[str]:
    """References to the newest finished run of every method."""
    runs = {record.method: record for record in read_records(workspace, "pretrain")}
    if not runs:
        raise UsageError(
            f"no pretrained encoder in {workspace}: `bench pretrain METHOD` makes one, "
            "or name one with --encoder"
        )
    return [f"{method}@{record.key[:12]}" for method, record in sorted(runs.items())]


def evaluate(
    evaluation: Evaluation,
    reference: str,
    layers: Sequence[str],
    data: str,
    workspace: Path,
    runtime: Runtime,
    *,
    skip_bad_images: bool = False,
) -> list[Record]:
    """One record per layer (`all`: every one; none: the last); missing ones are made in one go."""
    if isinstance(evaluation.config, TrainConfig):  # what is computed with is part of the key
        precision = resolve_precision(evaluation.config.precision)
        settings = evaluation.config.model_copy(update={"precision": precision})
        evaluation = type(evaluation)(settings)
    dataset = catalogue.dataset(data)
    encoder = Reference(reference, workspace)
    asked = tuple(dict.fromkeys(layers)) or encoder.encoder.layers[-1:]
    wanted = encoder.encoder.layers if "all" in asked else asked
    encoder.encoder.check_layers(wanted)
    size = encoder.spec.image_size
    train, test = (
        open_store(dataset, split, size, skip_bad_images=skip_bad_images, workers=runtime.workers)
        for split in ("train", "test")
    )
    runs = {layer: _run(workspace, evaluation, encoder, layer, train, test) for layer in wanted}
    missing = [layer for layer in wanted if runs[layer].record is None]
    with ExitStack() as locks:
        for layer in sorted(missing, key=lambda layer: runs[layer].key):
            locks.enter_context(runs[layer].working())
        # Another process may have made some while this one waited.
        missing = [layer for layer in missing if runs[layer].record is None]
        if missing:
            subject = Subject(encoder.encoder, encoder.spec, tuple(missing))
            folders = {layer: runs[layer].folder for layer in missing}
            started = time.monotonic()
            outcomes = evaluation.evaluate(subject, train, test, runtime, folders)
            for layer, outcome in outcomes:  # recorded at once: a kill loses one layer at most
                _finish(
                    runs[layer], evaluation, encoder, dataset.name, train, test, outcome, started
                )
    records = [runs[layer].record for layer in wanted]
    return [record for record in records if record is not None]


def _run(
    workspace: Path,
    evaluation: Evaluation,
    encoder: Reference,
    layer: str,
    train: ImageStore,
    test: ImageStore,
) -> Run:
    identity = {
        "kind": "evaluation",
        "protocol": evaluation.protocol,
        "config": evaluation.config.model_dump(mode="json"),
        "layer": layer,
        "encoder": encoder.identity,
        "data": {"train": train.index.digest, "test": test.index.digest},
    }
    name = f"{evaluation.protocol.partition('@')[0]}-{layer}-{encoder.name}"
    return Run(workspace, "evaluation", name, identity)


def _finish(
    run: Run,
    evaluation: Evaluation,
    encoder: Reference,
    data_name: str,
    train: ImageStore,
    test: ImageStore,
    outcome: Outcome,
    started: float,
) -> None:
    for name, rows in outcome.predictions.items():
        if len(rows) != len(test):
            raise ValueError(f"{name}: {len(rows)} predictions for {len(test)} test images")
    write_predictions(run.folder / "predictions.npz", outcome.predictions)
    details = {
        "protocol": " ".join([evaluation.protocol, *evaluation.config.deviations()]),
        "metric": evaluation.metric,
        "selection": dict(outcome.selection),
        "test_images": len(test),
        "skipped_images": test.index.skipped,
        "skipped_training_images": train.index.skipped,
        "pretraining": encoder.run.identity["config"] if encoder.run else None,
        "pretraining_data": encoder.run.data if encoder.run else None,
        "pretraining_digest": encoder.run.identity["data"] if encoder.run else None,
        "train_images": len(train),
    }
    run.finish(
        method=encoder.name,
        data=data_name,
        metrics=outcome.metrics,
        details=details,
        started=started,
        device=device_name(),
    )
    (run.folder / "checkpoint.pt").unlink(missing_ok=True)
