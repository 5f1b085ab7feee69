"""A finished run made again, apart from it, and compared with it bit for bit."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from ssl_bench import catalogue
from ssl_bench.errors import BenchError, DataError, UsageError
from ssl_bench.records.command import PATH, encoder_options, without_place
from ssl_bench.records.places import Options, places_of_data
from ssl_bench.records.protocols import harness_of, settings_of
from ssl_bench.records.record import EvaluationRecord, PretrainRecord, Record
from ssl_bench.records.workspace import find_run, folder_of, predictions_of, read_records
from ssl_bench.runtime import Runtime


def rerun(
    record: Record, workspace: Path, data: Sequence[str], runtime: Runtime,
    *, skip_bad_images: bool = False,
) -> list[str]:  # fmt: skip
    """Make a finished run again, apart from it, and say how the two differ; empty: in nothing.

    `data` are its sets, as `--data` takes them. Weights and predictions are compared bit for bit.
    Raises UsageError for another number of sets, and for a baseline where the workspace has no
    encoder of its size.
    """
    if len(data) != len(record.sets):
        needed = f"{len(record.sets)} sets, {record.data}" if len(record.sets) > 1 else "one set"
        raise UsageError(f"run {record.key[:12]} is of {needed}: --data names {len(data)}")
    # Hidden, so that what a kill leaves is no run of the workspace; on its disk, which has room.
    with tempfile.TemporaryDirectory(prefix=".rerun-", dir=workspace) as folder:
        apart = Path(folder)
        if record.kind == "pretrain":
            found = _pretrained(record, workspace, apart, data, runtime, skip_bad_images)
        else:
            found = _evaluated(record, workspace, apart, data[0], runtime, skip_bad_images)
        if found.key != record.key:
            before, now = record.identity.plain(), found.identity.plain()
            parts = [name for name, value in before.items() if now.get(name) != value]
            return [f"{part} differs: this is another run" for part in parts]
        return list(_differences(record, found, workspace, apart))


def _pretrained(
    record: PretrainRecord,
    workspace: Path,
    apart: Path,
    data: Sequence[str],
    runtime: Runtime,
    skip: bool,
) -> PretrainRecord:
    from ssl_bench.training.pretrain import pretrain

    config = settings_of(catalogue.pretext(record.method).Config, record)
    config = config.model_copy(update={"start": record.details.parent})
    step = record.identity.kept
    made = pretrain(
        record.method, config, data, apart, runtime,
        skip_bad_images=skip, keep_at=(step,) if step else (), starts=workspace,
    )  # fmt: skip
    return find_run(apart, f"{record.method}@{made.key}:{step}") if step else made


def _evaluated(
    record: EvaluationRecord, workspace: Path, apart: Path, data: str, runtime: Runtime, skip: bool
) -> EvaluationRecord:
    from ssl_bench.evaluation.evaluate import evaluate
    from ssl_bench.evaluation.reference import Reference

    harness = harness_of(record)
    if harness is None:
        raise DataError(f"{record.identity.protocol} is not installed")
    options: dict[str, Any] = _some_encoder(record, workspace)
    reference = Reference(options.pop("encoder"), workspace, **options)
    control, layer = record.identity.control, record.asked_layer
    made = evaluate(
        [(harness, [layer] if layer else [])], reference, data, apart, runtime,
        skip_bad_images=skip, controls=bool(control),
    )  # fmt: skip
    alike = [r for r in made if r.identity.control == control]
    same = [r for r in alike if r.identity.layer == record.identity.layer]
    return (same or made)[0]


def _some_encoder(record: EvaluationRecord, workspace: Path) -> Options:
    """The record's encoder, or for a row without one any of the same size of images."""
    if record.identity.encoder:
        found = encoder_options(record, workspace)
        if PATH in found.values():
            raise UsageError(
                f"{record.method} is only a name: the workspace does not remember its weights "
                "file; evaluate it once more, and it does"
            )
        return found
    size = record.identity.image_size
    for run in read_records(workspace, "pretrain"):
        if run.details.encoder.spec.get("image_size") == size:
            return {"encoder": f"{run.method}@{run.key[:12]}"}
    raise UsageError(
        f"{record.method} needs no encoder, but is made beside one: `bench pretrain random "
        f"--image-size {size}` makes one"
    )


def data_of(record: Record, workspace: Path) -> list[str]:
    """What `--data` takes for a record's sets: as it was typed, or their names if these are places.

    Raises UsageError where neither is known.
    """
    places = places_of_data(workspace, record)
    return [place or _as_named(name) for (name, _), place in zip(record.sets, places, strict=True)]


def _as_named(name: str) -> str:
    """A set's name if it can be opened by it."""
    asked = without_place(name)
    try:
        return catalogue.dataset(name) and name
    except BenchError as error:
        if asked == name:
            raise
        raise UsageError(
            f"{name} is only a name: say where the images are with --data {asked}"
        ) from error


def _differences(record: Record, found: Record, workspace: Path, apart: Path) -> Iterator[str]:
    for name, value in record.metrics.items():
        if found.metrics.get(name) != value:
            yield f"{name} was {value:g} and is {found.metrics.get(name)}"
    if record.kind == "pretrain" and found.kind == "pretrain":
        before, now = record.details.encoder.digest, found.details.encoder.digest
        if before != now:
            yield f"the encoder's weights were {before[:12]} and are {now[:12]}"
        yield from _differing_weights(folder_of(workspace, record), folder_of(apart, found))
    elif record.kind == "evaluation" and found.kind == "evaluation":
        before, now = predictions_of(record, workspace), predictions_of(found, apart)
        if different := _unlike(before, now):
            harness = harness_of(found)  # what was imported may be compact
            different = _unlike(before, harness.compact(now)) if harness else different
        yield from (f"the predictions' {name} differ" for name in different)


def _unlike(before: Mapping[str, np.ndarray], now: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the arrays that are not the same, value by value."""
    names = sorted(before.keys() | now.keys())
    return [n for n in names if n not in before or n not in now or not _same(before[n], now[n])]


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b)


def _differing_weights(before: Path, now: Path) -> Iterator[str]:
    """What a pretext keeps beside its encoder, where it is still there."""
    for path in sorted(before.glob("*.safetensors")):
        if path.name == "encoder.safetensors":  # by its digest, also where an import left it out
            continue
        held, found = load_file(path), load_file(now / path.name)
        for name in sorted(held.keys() | found.keys()):
            if not np.array_equal(held.get(name, ()), found.get(name, ())):
                yield f"{path.name}: {name} differs"
