"""A suite carried out: what is finished is read, what is missing is made, stage by stage."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ssl_bench import catalogue
from ssl_bench.data.faults import refuse
from ssl_bench.encoders.elsewhere import scheme_of
from ssl_bench.errors import Busy, DataError, Degenerate
from ssl_bench.evaluation.evaluate import evaluate
from ssl_bench.evaluation.reference import Reference
from ssl_bench.evaluation.suite import (
    PretrainEntry,
    Stage,
    Suite,
    evaluation_config,
    floor_method,
    pretrain_config,
    steps_on_the_way,
)
from ssl_bench.progress import say, say_once, waiting
from ssl_bench.records.record import EvaluationRecord, PretrainRecord
from ssl_bench.records.workspace import Run
from ssl_bench.runtime import Runtime
from ssl_bench.training.keep import kept_run
from ssl_bench.training.pretrain import Pretraining, pretrain

LOOK_SECONDS = 15  # between two looks at a training in other hands, for what it has kept


def suite_records(
    suite: Suite,
    workspace: Path,
    runtime: Runtime,
    *,
    skip_bad_images: bool = False,
    finished: bool = False,
    failures: list[str] | None = None,
) -> list[EvaluationRecord]:
    """All evaluations of a suite; those that are missing are made now, unless `finished`.

    What another process is at is left for later, so that several processes on one workspace share
    a suite. What diverges or collapses is left out: `failures` takes a line for each. Raises
    DataError if there is no number.
    """
    with catalogue.each_dataset_once():
        suite_run = _SuiteRun(suite, workspace, runtime, skip_bad_images, finished)
        return _records(suite, suite_run, [] if failures is None else failures)


def _records(suite: Suite, suite_run: "_SuiteRun", failures: list[str]) -> list[EvaluationRecord]:
    found = dict[int, list[EvaluationRecord]]()
    left = dict(enumerate(suite.plan, start=1))
    total = len(left)
    wait = False
    while left:
        before = len(left)
        for place, stage in list(left.items()):
            say(f"[{place}/{total}] {stage.title}")
            try:
                found[place] = suite_run.do(stage, wait=wait)
                del left[place]
            except Busy as busy:
                say(f"{busy}: later")
            except Degenerate as error:
                say(f"{error}: the others go on")
                failures.append(f"{stage.title}: {error}")
                found[place] = replace(suite_run, finished=True).do(stage, wait=False)
                del left[place]
            if wait:  # for one thing; then look again what is free
                break
        wait = len(left) == before  # all that is left is in other hands
    # Two evaluations of a suite may ask for the same number.
    records = list({r.key: r for place in sorted(found) for r in found[place]}.values())
    if not records:
        refuse(failures, suite.name)
        raise DataError(f"of suite {suite.name} there is no number")
    return records


@dataclass(frozen=True)
class _SuiteRun:
    """A suite and what it is carried out with."""

    suite: Suite
    workspace: Path
    runtime: Runtime
    skip_bad_images: bool
    finished: bool
    # Trainings that diverged, by row and seed: they are not made again for each of their steps.
    diverged: dict[tuple[int, int], Degenerate] = field(default_factory=dict)

    def do(self, stage: Stage, *, wait: bool) -> list[EvaluationRecord]:
        """A stage's records. Raises Busy where another process is at it, unless it may `wait`."""
        now = replace(self, runtime=replace(self.runtime, wait=wait))
        row = stage.row
        if isinstance(row, PretrainEntry):
            config = pretrain_config(self.suite, row, stage.seed)
            keep_at = steps_on_the_way(self.suite, row, stage.seed)
            at = id(row), stage.seed
            if at in self.diverged and not self.finished:
                raise self.diverged[at]
            try:
                encoder = now.pretrain(row, config, keep_at, stage.kept)
            except Degenerate as error:
                # Not the error itself, whose traceback keeps all that the training held.
                self.diverged[at] = Degenerate(str(error))
                raise
            return now.measure(stage, encoder) if encoder else []
        encoder = Reference(
            row.encoder, self.workspace, weights=row.weights, image_size=row.image_size
        )
        records = now.measure(stage, encoder)
        if self.suite.controls and (floor := now.untrained(encoder)):
            records += now.measure(stage, floor)
        return records

    def pretrain(
        self,
        entry: PretrainEntry,
        config: Any,
        keep_at: Sequence[int] = (),
        kept: int | None = None,
    ) -> Reference | None:
        """The encoder of one pretext and seed, trained if it is missing; None if it may not be.

        The one of the step `kept` is taken as soon as it is there, whoever trains.
        """
        asked = entry.method, config, self.suite.images_of(entry), self.workspace
        skip = self.skip_bad_images
        runtime = replace(self.runtime, wait=self.runtime.wait and not kept)
        make = partial(
            pretrain, *asked, runtime, skip_bad_images=skip, keep_at=keep_at, until=entry.until
        )
        if not (kept or self.finished):
            record = make()
        else:  # the key needs the digest of the images, so they are decoded if need be
            it = Pretraining.of(*asked, runtime, skip_bad_images=skip)
            run = kept_run(self.workspace, it.identity, kept) if kept else it.run
            if not self.finished:
                self._have(run, make)
            record = run.record
        return Reference(f"{entry.method}@{record.key}", self.workspace) if record else None

    def _have(self, run: Run[PretrainRecord], make: Callable[[], object]) -> None:
        """Make a run, or look until another process has kept it; that one may go on training."""
        while run.record is None:
            try:
                make()
            except Busy:
                if not self.runtime.wait:
                    raise
                title = f"waiting for another process, which is to keep {run.folder.name}"
                say_once(title)
                with waiting(title):
                    time.sleep(LOOK_SECONDS)

    def untrained(self, reference: Reference) -> Reference | None:
        """The same network with random weights, at the same image size; None: it has no such."""
        spec = reference.spec
        if scheme_of(spec.arch):
            return None
        settings = {
            # Of ours, N(0, 0.01²) would be no floor; committed floors of others are these, too.
            "arch": spec.arch, "image_size": spec.image_size, "init": "fan-in",
            "seed": self.suite.seeds[0],
        }  # fmt: skip
        floor = floor_method()
        entry = PretrainEntry(method=floor)
        return self.pretrain(entry, catalogue.pretext(floor).Config(**settings))

    def measure(self, stage: Stage, encoder: Reference) -> list[EvaluationRecord]:
        """A stage's evaluations of one encoder: those on the same images share a pass over them."""
        by_data: dict[str, list[tuple[Any, Sequence[str]]]] = {}
        for entry, layers in stage.requests:
            harness = catalogue.evaluation(entry.evaluation)(evaluation_config(entry, stage.seed))
            by_data.setdefault(entry.data or self.suite.data, []).append((harness, layers))
        return [
            record
            for data, requests in by_data.items()
            for record in evaluate(
                requests, encoder, data, self.workspace, self.runtime,
                skip_bad_images=self.skip_bad_images,
                # A control costs as much as a number: the first seed has them, at its end.
                controls=self.suite.controls
                and stage.seed == self.suite.seeds[0]
                and not stage.kept,
                finished=self.finished,
            )
        ]  # fmt: skip
