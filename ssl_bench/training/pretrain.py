"""The job from images to encoder: train a pretext, or take its starting weights, and record it."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ssl_bench import catalogue
from ssl_bench.data.dataset import Dataset
from ssl_bench.data.store.concat import ConcatStore, Squares, open_joined
from ssl_bench.data.store.packing import LEAST_DEVIATION
from ssl_bench.encoders.build import (
    TRUNKS,
    EncoderSpec,
    build_encoder,
    check_spec,
    learn_up_to,
    version_of,
)
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.weights import save_encoder, weights_digest
from ssl_bench.errors import DataError, UsageError, counted
from ssl_bench.files import written_at_once
from ssl_bench.progress import say, waiting
from ssl_bench.records.places import remember
from ssl_bench.records.record import (
    KeptCourse,
    PretrainDetails,
    PretrainedSet,
    PretrainIdentity,
    PretrainRecord,
    SavedEncoder,
)
from ssl_bench.records.workspace import Run
from ssl_bench.runtime import Runtime, device_name, is_one_of_several, resolve_precision
from ssl_bench.training.build import PLAIN, build_pretext, exported
from ssl_bench.training.keep import check_kept, kept_run, not_kept, steps_to_keep
from ssl_bench.training.pretext import (
    EncoderConfig,
    Fitted,
    TrainConfig,
    check_training,
)
from ssl_bench.training.probe import Look, Probing
from ssl_bench.training.start import Start, find_start

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from ssl_bench.training.loop import Report


@dataclass(frozen=True)
class Pretraining:
    """A method with its settings and images, and the run that holds the encoder, made or not."""

    method: str
    config: EncoderConfig
    sets: tuple[Dataset, ...]
    store: Squares
    identity: PretrainIdentity
    run: Run[PretrainRecord]
    start: Start | None = None

    @classmethod
    def of(
        cls, method: str, config: EncoderConfig, data: str | Sequence[str], workspace: Path,
        runtime: Runtime, *, skip_bad_images: bool = False, starts: Path | None = None,
    ) -> "Pretraining":  # fmt: skip
        """Decodes the images if need be. Raises UsageError for settings that cannot be.

        `starts` is the workspace that holds the run of `--start`, if it is another one.
        """
        if isinstance(config, TrainConfig):
            config = config.model_copy(update={"precision": resolve_precision(config.precision)})
        check_training(catalogue.pretext(method))
        sets = catalogue.datasets(data)
        spec = config.spec(PLAIN)
        check_spec(spec)  # before images are decoded
        if spec.arch not in TRUNKS:  # of a library's networks only building says it
            build_encoder(spec)
        store = open_joined(
            sets, config.image_size, skip_bad_images=skip_bad_images, workers=runtime.workers
        )
        if isinstance(config, TrainConfig):
            check_contrast(store)
        start = None
        if config.start is not None:
            if hasattr(catalogue.pretext(method), "fit"):
                raise UsageError(f"--start: {method} makes all of its weights itself")
            own = config.spec(store.normalization)
            start = find_start(starts or workspace, config.start, own, config.seed)
            # The method alone, which rows of all seeds share; the digest says which run it was.
            config = config.model_copy(update={"start": start.run.method})
        network = version_of(config.arch)
        # Only from 2 on: keys of earlier records are of what was set.
        optional: dict[str, Any] = {"network": network} if network > 1 else {}
        optional |= {"start": start.digest} if start else {}
        identity = PretrainIdentity(
            kind="pretrain",
            method=method,
            version=catalogue.pretext(method).version,
            config=config.model_dump(mode="json"),
            data=store.index.digest,
            **optional,
        )
        run = Run(workspace, PretrainRecord, method, identity)
        return cls(method, config, sets, store, identity, run, start)

    @property
    def data_name(self) -> str:
        """`A`, or `A + B`."""
        return " + ".join(one.name for one in self.sets)

    @property
    def parts(self) -> list[PretrainedSet]:
        """The sets, where there are several."""
        if not isinstance(self.store, ConcatStore):
            return []
        return [
            PretrainedSet(name=one.name, digest=store.index.digest, images=len(store))
            for one, store in zip(self.sets, self.store.parts, strict=True)
        ]

    def remember(self, data: str | Sequence[str], workspace: Path) -> None:
        """Where the images lie on this machine, if their names do not say it."""
        asked = [data] if isinstance(data, str) else data
        digests = [part.digest for part in self.parts] or [self.store.index.digest]
        for one, given, digest in zip(self.sets, asked, digests, strict=True):
            if given != one.name:
                remember(workspace, one.name, [digest], {"data": given})


def pretrain(
    method: str,
    config: EncoderConfig,
    data: str | Sequence[str],
    workspace: Path,
    runtime: Runtime,
    *,
    skip_bad_images: bool = False,
    keep_at: Sequence[int] = (),
    until: int | None = None,
    starts: Path | None = None,
    probe: Probing | None = None,
) -> PretrainRecord:
    """The record of `method` with these settings: read if it exists, else made or continued.

    `data` names a set, or several whose training images are taken as one. After the steps
    `keep_at` the encoder is kept as a run of its own (keep.py); behind the step `until` the
    training rests, and the record is that of the encoder kept there. `starts`: see Pretraining.of.
    `probe` looks at the encoder while it is trained, for the log.
    UsageError for a step that the training does not reach, or passed before without keeping it.
    """
    steps = steps_to_keep(config, keep_at, until)  # before images are decoded
    it = Pretraining.of(
        method, config, data, workspace, runtime, skip_bad_images=skip_bad_images, starts=starts
    )
    config, run = it.config, it.run
    if probe:
        probe.check(it.store)
    wanted = kept_run(workspace, it.identity, until) if until in steps else run
    if wanted.record is not None and not is_one_of_several():
        if run.record is not None:
            check_kept(workspace, it.identity, steps, run.folder)
            run.sweep()
        if not not_kept(workspace, it.identity, steps):
            it.remember(data, workspace)
            if probe:
                say(f"{wanted.folder.name} is finished: --probe looks while an encoder is trained")
            return wanted.record
    precision = config.precision if isinstance(config, TrainConfig) else "32"
    fabric = runtime.fabric(resolve_precision(precision))
    with ExitStack() as lock:
        if fabric.is_global_zero and run.record is None:
            lock.enter_context(run.working(wait=runtime.wait))
        # Another launch may have made it while the first process waited for the lock. What that
        # one sees is what all do: a process that looked for itself could miss the others.
        if fabric.broadcast(run.record is None):
            _make(it, workspace, runtime, fabric, steps, until if until in steps else None, probe)
        fabric.barrier()
    check_kept(workspace, it.identity, steps, run.folder)
    record = wanted.record
    assert record is not None
    if fabric.is_global_zero:
        it.remember(data, workspace)
    return record


def check_contrast(store: Squares) -> None:
    """DataError for images that are all of one colour, of which every pretext learns nothing."""
    if round(max(store.normalization.std), 6) <= LEAST_DEVIATION:
        red, green, blue = (round(255 * channel) for channel in store.normalization.mean)
        raise DataError(
            f"{counted(len(store), 'training image')}, all of one colour ({red}, {green}, {blue}): "
            "there is nothing to learn from; look at how they were written"
        )


def _make(
    it: Pretraining, workspace: Path, runtime: Runtime, fabric: "Fabric", steps: Sequence[int],
    until: int | None, probe: Probing | None,
) -> None:  # fmt: skip
    started = time.monotonic()
    config, store, folder = it.config, it.store, it.run.folder
    weights = it.start.weights() if it.start else None
    pretext, spec = build_pretext(it.method, config, store.normalization, len(store), weights)
    start = weights_digest(pretext.encoder.state_dict())
    if fabric.world_size > 1:  # whatever a pretext stands on, it is no library's classifier
        learn_up_to(pretext.encoder, pretext.encoder.layers, config.image_size)
    # Taken before the loop wraps it for its devices.
    encoder = exported(pretext)
    write = partial(_write, it, encoder, spec, start)
    look = Look(probe.every, partial(probe.measure, encoder, spec, store)) if probe else None
    course: dict[str, Any] = {}  # how the weights came about: little to say of random ones
    metrics: dict[str, float] = {}
    if isinstance(config, TrainConfig):
        from ssl_bench.training.loop import train  # Fabric takes as long to import as torch

        missing = not_kept(workspace, it.identity, steps) if steps else []
        missing = fabric.broadcast(missing) if steps else []  # all stop at the same steps
        report = train(
            pretext,
            store,
            config,
            config.seed,
            runtime,
            folder,
            title=f"{it.method} seed {config.seed}",
            keep={step: partial(_keep, it, workspace, fabric, write, step) for step in missing},
            until=until,
            look=look,
        )
        metrics, course = dict(report.last), {"training": _speed(report, fabric)}
    if until or not fabric.is_global_zero:
        return
    if isinstance(pretext, Fitted) and not isinstance(config, TrainConfig):
        with waiting(f"fitting {it.method} seed {config.seed}"):
            course["fit"] = dict(pretext.fit(store, fabric.device))
    pretext.cpu()
    saved = f"{pretext.exported}."
    others = {k: v for k, v in pretext.state_dict().items() if not k.startswith(saved)}
    if others:
        _save_rest(others, folder)
    record = write(it.run, metrics, course, started)
    if isinstance(config, TrainConfig) and record.details.encoder.digest == start:
        say(f"warning: training {it.method} left the encoder at its starting weights")


def _keep(
    it: Pretraining,
    workspace: Path,
    fabric: "Fabric",
    write: Callable[..., PretrainRecord],
    step: int,
    report: "Report",
) -> None:
    """Make the run of the encoder as it is after this step."""
    kept = kept_run(workspace, it.identity, step)
    assert isinstance(it.config, TrainConfig)
    course = KeptCourse(
        run=it.run.key,
        step=step,
        images_seen=step * it.config.batch_size,
        seconds=round(report.seconds, 2),
    )
    with kept.working():
        more = {"training": _speed(report, fabric), "kept": course}
        record = write(kept, report.last, more, time.monotonic() - report.seconds)
    say(f"kept {record.reference} of {it.config.steps}")


def _speed(report: "Report", fabric: "Fabric") -> dict[str, Any]:
    return {
        "images_per_second": round(report.images_per_second, 1),
        "data_wait": round(report.data_wait, 4),
        "resumed_at": report.resumed_at,
        "devices": fabric.world_size,
    }


def _write(
    it: Pretraining,
    encoder: Encoder,
    spec: EncoderSpec,
    start: str,
    run: Run[PretrainRecord],
    metrics: Mapping[str, float],
    course: dict[str, Any],
    started: float,
) -> PretrainRecord:
    """Save the encoder as it is now in the run's folder, and the record, last."""
    digest = save_encoder(encoder, spec, run.folder / "encoder.safetensors")
    if it.store.index.notes:
        course = {**course, "data_notes": {"train": it.store.index.notes}}
    if it.parts:
        course = {**course, "sets": it.parts}
    if it.start:
        course = {**course, "parent": it.start.reference}
    details = PretrainDetails(
        skipped_images=it.store.index.skipped,
        images=len(it.store),
        **course,
        encoder=SavedEncoder(spec=spec.plain(), digest=digest, start=start),
    )
    return run.finish(
        method=it.method, data=it.data_name, metrics=metrics, details=details,
        started=started, device=device_name(),
    )  # fmt: skip


def _save_rest(state: dict[str, torch.Tensor], folder: Path) -> None:
    """The parts beside the encoder, for previews and inpainting later."""
    from safetensors.torch import save_file

    with written_at_once(folder / "rest.safetensors") as scratch:
        save_file({name: t.detach().contiguous() for name, t in state.items()}, scratch)
