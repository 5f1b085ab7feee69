"""A suite carried out: what is finished is read, what is missing is made, stage by stage."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ssl_bench import catalogue
from ssl_bench.errors import Busy, DataError
from ssl_bench.evaluation.evaluate import evaluate
from ssl_bench.evaluation.reference import Reference
from ssl_bench.evaluation.suite import (
    PretrainEntry,
    Stage,
    Suite,
    evaluation_config,
    floor_method,
    pretrain_config,
)
from ssl_bench.progress import say
from ssl_bench.records.record import EvaluationRecord
from ssl_bench.runtime import Runtime
from ssl_bench.training.pretrain import Pretraining, pretrain


def suite_records(
    suite: Suite,
    workspace: Path,
    runtime: Runtime,
    *,
    skip_bad_images: bool = False,
    finished: bool = False,
) -> list[EvaluationRecord]:
    """All evaluations of a suite; those that are missing are made now, unless `finished`.

    What another process is at is left for later, so that several processes on one workspace share
    a suite. Raises DataError if there is no number.
    """
    suite_run = _SuiteRun(suite, workspace, runtime, skip_bad_images, finished)
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
            if wait:  # for one thing; then look again what is free
                break
        wait = len(left) == before  # all that is left is in other hands
    # Two evaluations of a suite may ask for the same number.
    records = list({r.key: r for place in sorted(found) for r in found[place]}.values())
    if not records:
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

    def do(self, stage: Stage, *, wait: bool) -> list[EvaluationRecord]:
        """A stage's records. Raises Busy where another process is at it, unless it may `wait`."""
        now = replace(self, runtime=replace(self.runtime, wait=wait))
        row = stage.row
        if isinstance(row, PretrainEntry):
            encoder = now.pretrain(row, pretrain_config(self.suite, row, stage.seed))
            return now.measure(stage, encoder) if encoder else []
        encoder = Reference(
            row.encoder, self.workspace, weights=row.weights, image_size=row.image_size
        )
        records = now.measure(stage, encoder)
        if self.suite.controls and (floor := now.untrained(encoder)):
            records += now.measure(stage, floor)
        return records

    def pretrain(self, entry: PretrainEntry, config: Any) -> Reference | None:
        """The encoder of one pretext and seed, trained if it is missing; None if it may not be."""
        asked = entry.method, config, self.suite.images_of(entry), self.workspace, self.runtime
        if self.finished:  # the key needs the digest of the images, so they are decoded if need be
            run = Pretraining.of(*asked, skip_bad_images=self.skip_bad_images).run.record
        else:
            run = pretrain(*asked, skip_bad_images=self.skip_bad_images)
        return Reference(f"{entry.method}@{run.key}", self.workspace) if run else None

    def untrained(self, reference: Reference) -> Reference | None:
        """The same network with random weights, at the same image size."""
        spec = reference.spec
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
                # A control costs as much as a number: the first seed has them.
                controls=self.suite.controls and stage.seed == self.suite.seeds[0],
                finished=self.finished,
            )
        ]  # fmt: skip
