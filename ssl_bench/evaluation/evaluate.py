"""The job from encoder to record: evaluations of one encoder at several layers.

All probes of frozen features share one pass over the images; each number is recorded as soon as it
is known, so a kill loses one at most.
"""

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_bench import catalogue
from ssl_bench.data.dataset import Dataset, SplitName
from ssl_bench.errors import DataError, UsageError
from ssl_bench.evaluation.controls import SHUFFLED, against_chance, shuffled
from ssl_bench.evaluation.features import Features, extract, feature_bytes
from ssl_bench.evaluation.harness import (
    Evaluation,
    Harness,
    Outcome,
    Point,
    Probe,
    Subject,
    printing,
    score_with_intervals,
    wanted_layers,
)
from ssl_bench.evaluation.metrics import MEAN_PER_CLASS
from ssl_bench.evaluation.metrics.by_class import with_values_by_class
from ssl_bench.evaluation.reference import Reference
from ssl_bench.progress import progress, say, waiting
from ssl_bench.records.places import remember
from ssl_bench.records.record import (
    EvaluationDetails,
    EvaluationIdentity,
    EvaluationRecord,
    Kept,
)
from ssl_bench.records.workspace import Run, write_predictions
from ssl_bench.runtime import (
    Runtime,
    device_name,
    is_main_process,
    is_one_of_several,
    resolve_precision,
    stay_alone,
)
from ssl_bench.training.config import TrainConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Request = tuple[Harness, Sequence[str]]  # what is measured, and at which layers (`all`, none: last)


@dataclass(frozen=True)
class _Splits:
    """The splits of a harness, opened in the form that its kind sees; `tests` are predicted."""

    opened: Mapping[SplitName, Any]
    tests: Sequence[SplitName]

    @property
    def learnt(self) -> Sequence[Any]:
        """Those that are not predicted."""
        return [store for name, store in self.opened.items() if name not in self.tests]

    @property
    def judged(self) -> Sequence[Any]:
        """Those that are, in order."""
        return [self.opened[name] for name in self.tests]

    @property
    def digests(self) -> dict[SplitName, str]:
        """Of the images of each."""
        return {name: store.index.digest for name, store in self.opened.items()}

    @property
    def notes(self) -> dict[SplitName, list[str]]:
        """How the images of each were understood, where there is something to say."""
        return {n: store.index.notes for n, store in self.opened.items() if store.index.notes}

    @cached_property
    def duplicates(self) -> list[str]:
        """Names of test images whose file is also a training image, byte for byte."""
        known = {digest for store in self.learnt for digest in store.index.digests}
        indices = [store.index for store in self.judged]
        pairs = [pair for i in indices for pair in zip(i.names, i.digests, strict=True)]
        found = [name for name, digest in pairs if digest in known]
        if found:
            say(f"warning: {len(found)} test images are training images too, {found[0]} first")
        return found


@dataclass(frozen=True)
class _Job:
    """One number to be: a harness at a point, what it sees, and the run that keeps it."""

    harness: Harness
    images: _Splits
    point: Point
    run: Run[EvaluationRecord]
    control: bool = False

    @property
    def layer(self) -> str:
        """The point's key, which is a layer but in harnesses with points of their own."""
        return self.point.key


def evaluate(
    requests: Sequence[Request],
    encoder: Reference,
    data: str,
    workspace: Path,
    runtime: Runtime,
    *,
    skip_bad_images: bool = False,
    controls: bool = False,
    finished: bool = False,
) -> list[EvaluationRecord]:
    """One record per harness and layer; the missing ones are made in one go, unless `finished`.

    With `controls`, each probe also runs once with shuffled training labels, at the last of its
    layers, and must fall to chance. Raises what the harnesses raise, after the others are done.
    """
    dataset = catalogue.dataset(data)
    work = _EncoderOnData(encoder, dataset, workspace, runtime, skip_bad_images)
    asked = [job for request in requests for job in work.jobs(*request, controls=controls)]
    jobs = list({job.run.key: job for job in asked}.values())  # the same may be asked for twice
    missing = list[_Job]()
    for job in jobs:
        if job.run.record is not None:
            job.run.sweep()
        elif not finished:
            missing.append(job)
    # What is recorded has passed: a finished suite is read without what its checks import.
    for job in {id(job.harness): job for job in missing}.values():
        job.harness.check(job.images.opened)
    if missing:
        encoder.check_weights()
    fabric = _launched(jobs, missing, runtime)
    with ExitStack() as locks:
        if fabric is None or fabric.is_global_zero:
            # All processes lock in one order, so that no two wait for each other.
            for job in sorted(missing, key=lambda job: job.run.key):
                locks.enter_context(job.run.working(wait=runtime.wait))
        # Another process may have made some while this one waited. Places among all jobs: what is
        # missing may look different to each process, and the first one's word counts.
        left = [i for i, job in enumerate(jobs) if missing and job.run.record is None]
        if fabric is not None:
            left = fabric.broadcast(left)
        work.do([jobs[i] for i in left])
        if fabric is not None:
            fabric.barrier()  # the first process writes: the others read what it wrote
    if is_main_process():
        work.remember([job.images for job in jobs], data)
    records = [job.run.record for job in jobs]
    return [record for record in records if record is not None]


def _launched(jobs: Sequence[_Job], missing: Sequence[_Job], runtime: Runtime) -> "Fabric | None":
    """The processes that share the jobs, where there are several: each runs all of this.

    They train together and score the test images alike; the first one writes. Probes do not train
    by the loop: UsageError if several are asked for.
    """
    alone = [job for job in jobs if not isinstance(job.harness.config, TrainConfig)]
    if alone and missing and runtime.devices not in ("1", "auto"):
        raise UsageError(f"--devices {runtime.devices}: {alone[0].harness.protocol} takes one")
    if not jobs or alone or runtime.devices == "1":
        stay_alone()
        return None
    if not missing and not is_one_of_several():  # else the others may be waiting for this one
        return None
    return runtime.fabric(resolve_precision(jobs[0].harness.config.precision))


@dataclass(frozen=True)
class _EncoderOnData:
    """An encoder and the images to measure it on."""

    encoder: Reference
    dataset: Dataset
    workspace: Path
    runtime: Runtime
    skip_bad_images: bool
    opened: dict[object, _Splits] = field(default_factory=dict)

    def images(self, harness: Harness) -> _Splits:
        """What a harness sees; those that open no store of their own share the squares."""
        kind = Harness if type(harness).open is Harness.open else harness
        key = kind, *harness.splits, None, *harness.tests
        if key not in self.opened:
            more = {"skip_bad_images": self.skip_bad_images, "workers": self.runtime.workers}
            found = {name: harness.open(self.dataset, name, self.encoder.spec, **more)
                     for name in harness.splits}  # fmt: skip
            self.opened[key] = _Splits(found, harness.tests)
        return self.opened[key]

    def jobs(self, harness: Harness, layers: Sequence[str], *, controls: bool) -> list[_Job]:
        if hasattr(harness.config, "precision"):  # what is computed with is part of the key
            precision = resolve_precision(harness.config.precision)
            harness = type(harness)(harness.config.model_copy(update={"precision": precision}))
        wanted = wanted_layers(harness, self.encoder.encoder, layers)
        points = harness.points(self.subject(wanted), self.encoder.name)
        images = self.images(harness)
        jobs = [_Job(harness, images, point, self._run(harness, images, point)) for point in points]
        if controls and isinstance(harness, Probe):
            run = self._run(harness, images, points[-1], control=True)
            jobs.append(_Job(harness, images, points[-1], run, control=True))
        return jobs

    def remember(self, images: Sequence[_Splits], data: str) -> None:
        """Where the images and a weights file lie on this machine, if their names do not say it."""
        if data != self.dataset.name:
            digests = {digest for splits in images for digest in splits.digests.values()}
            remember(self.workspace, self.dataset.name, digests, {"data": data})
        encoder = self.encoder
        if encoder.run is None and encoder.asked != {"encoder": encoder.name}:
            remember(self.workspace, encoder.name, [encoder.digest], encoder.asked)

    def subject(self, layers: tuple[str, ...]) -> Subject:
        """The encoder, and the way to the pretext that it is a part of."""
        reference = self.encoder
        return Subject(
            reference.encoder, reference.spec, layers, reference.pretext,
            name=reference.name, data=self.dataset.name,
        )  # fmt: skip

    def _run(
        self, harness: Harness, images: _Splits, point: Point, control: bool = False
    ) -> Run[EvaluationRecord]:
        # What does not apply is not set at all: the key is of what is set.
        optional: dict[str, Any] = {}
        name = f"{harness.protocol.partition('@')[0]}-{point.key}"
        if point.free:  # of the encoder it takes the size of the images
            optional["image_size"] = self.encoder.spec.image_size
        else:
            name += f"-{self.encoder.name}"
        if control:
            optional["control"] = SHUFFLED
            name = f"control-{name}"
        identity = EvaluationIdentity(
            kind="evaluation",
            protocol=harness.protocol,
            config=harness.config.model_dump(mode="json"),
            layer=point.key,
            encoder=None if point.free else self.encoder.identity,
            data=images.digests,
            **optional,
        )
        return Run(self.workspace, EvaluationRecord, name, identity)

    def do(self, jobs: Sequence[_Job]) -> None:
        """Carry out all jobs; the first error is raised when the others are recorded."""
        errors: list[DataError] = []
        probes = [job for job in jobs if isinstance(job.harness, Probe)]
        for images in {id(job.images): job.images for job in probes}.values():
            self._probe(images, [job for job in probes if job.images is images], errors)
        rest = [job for job in jobs if job not in probes]
        for harness in {id(job.harness): job.harness for job in rest}.values():
            if isinstance(harness, Evaluation):
                self._evaluate(harness, [job for job in rest if job.harness is harness])
        if errors:
            raise errors[0]

    def _evaluate(self, harness: Evaluation, jobs: Sequence[_Job]) -> None:
        by_layer = {job.layer: job for job in jobs}
        subject = self.subject(tuple(by_layer))
        folders = {layer: job.run.folder for layer, job in by_layer.items()}
        started = time.monotonic()
        outcomes = harness.evaluate(subject, jobs[0].images.opened, self.runtime, folders)
        for layer, outcome in outcomes:
            if is_main_process():
                self._finish(by_layer[layer], outcome, started, {})

    def _probe(self, images: _Splits, jobs: Sequence[_Job], errors: list[DataError]) -> None:
        """One pass over the images for all jobs, then layer by layer, whose rows are then freed."""
        wanted: dict[str, set[int]] = {}
        for job in jobs:
            wanted.setdefault(job.layer, set()).add(job.harness.config.dimensions)
        subject, spec = self.encoder.encoder, self.encoder.spec
        started = time.monotonic()
        count = sum(map(len, images.opened.values()))
        needed = feature_bytes(subject, spec, count, wanted)
        on_disk = needed > self.runtime.feature_memory()
        rows = {
            name: extract(subject, spec, store, wanted, self._title(name, wanted), on_disk=on_disk)
            for name, store in images.opened.items()
        }
        shared = {"seconds": round(time.monotonic() - started, 2), "on_disk": on_disk}
        ordered = sorted(jobs, key=lambda job: subject.layers.index(job.layer))
        users = Counter((job.layer, job.harness.config.dimensions) for job in jobs)
        for job in progress(ordered, "probes", len(ordered)):
            key = job.layer, job.harness.config.dimensions
            started = time.monotonic()
            found = {n: Features.of(rows[n][key], store) for n, store in images.opened.items()}
            control = ", shuffled labels" if job.control else ""
            with waiting(f"{job.harness.protocol} of {job.layer}, {self.encoder.name}{control}"):
                try:
                    outcome = self._outcome(job, found)
                except DataError as error:
                    errors.append(error)
                else:
                    self._finish(job, outcome, started, {"pass": shared})
            users[key] -= 1
            if not users[key]:
                for of_split in rows.values():
                    del of_split[key]

    def _title(self, split: str, layers: Collection[str]) -> str:
        of = ", ".join(layers) if len(layers) < 4 else f"{len(layers)} layers"
        return f"features of {split}, {of} of {self.encoder.name}"

    def _outcome(self, job: _Job, splits: Mapping[SplitName, Features]) -> Outcome:
        assert isinstance(job.harness, Probe)
        if job.control:
            splits = {name: rows if name in job.harness.tests else shuffled(rows, job.harness)
                      for name, rows in splits.items()}  # fmt: skip
        return job.harness.probe(job.layer, splits)

    def _finish(self, job: _Job, outcome: Outcome, started: float, more: Mapping[str, Any]) -> None:
        count = sum(map(len, job.images.judged))
        for name, rows in outcome.predictions.items():
            if len(rows) != count:
                raise ValueError(f"{name}: {len(rows)} predictions for {count} test images")
        if {store.index.metric for store in job.images.judged} == {MEAN_PER_CLASS.name}:
            outcome = replace(outcome, predictions=with_values_by_class(outcome.predictions))
        write_predictions(job.run.folder / "predictions.npz", outcome.predictions)
        with waiting(f"metrics and intervals of {count:,} test images"):
            metrics = score_with_intervals(job.harness, outcome.predictions)
            details = self._details(job, outcome, more)
            if job.control:
                control = against_chance(job.harness, outcome, metrics[details.metric])
                details = details.model_copy(update={"control": control})
        job.run.finish(
            method=job.point.row,
            data=self.dataset.name,
            metrics=metrics,
            details=details,
            started=started,
            device=device_name(),
        )

    def _details(self, job: _Job, outcome: Outcome, more: Mapping[str, Any]) -> EvaluationDetails:
        """What the record says beside the numbers; `more` is set only where there is some."""
        harness, images, layers = job.harness, job.images, self.encoder.encoder.layers
        encoder = None if job.point.free else self.encoder
        run = encoder.run if encoder else None
        if tuple(harness.tests) != Harness.tests:
            more = {**more, "tests": list(harness.tests)}
        if encoder and encoder.taken:
            more = {**more, "weights": encoder.taken}
        if images.notes:
            more = {**more, "data_notes": images.notes}
        if run and run.details.kept:
            more = {**more, "kept": Kept(run=run.identity.training, step=run.details.kept.step)}
        return EvaluationDetails(
            protocol=" ".join([harness.protocol, *harness.config.deviations()]),
            **printing(harness, outcome.predictions),
            column=job.point.column,
            encoder=encoder.name if encoder else None,
            asked_layer=job.point.layer,
            depth=layers.index(job.layer) if job.layer in layers else None,
            selection=dict(outcome.selection),
            test_images=sum(map(len, images.judged)),
            skipped_images=[name for store in images.judged for name in store.index.skipped],
            skipped_training_images=[n for store in images.learnt for n in store.index.skipped],
            duplicates=images.duplicates,
            pretraining=run.identity.config if run else None,
            pretext_version=run.identity.version if run else None,
            pretraining_data=run.data if run else None,
            pretraining_digest=run.identity.data if run else None,
            train_images=sum(map(len, images.learnt)),
            **more,
        )
