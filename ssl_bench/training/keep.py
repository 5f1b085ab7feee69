"""Encoders kept on the way: after some steps of a training, each as a run of its own.

What is kept changes nothing of what is trained, so it is no part of the training's identity. The
run of a kept encoder has that identity with the step, and its record is there as soon as the step
is done, while the training goes on.
"""

from collections.abc import Sequence
from pathlib import Path

from ssl_bench.errors import UsageError
from ssl_bench.records.record import PretrainIdentity, PretrainRecord
from ssl_bench.records.workspace import Run
from ssl_bench.training.pretext import EncoderConfig, TrainConfig


def steps_to_keep(
    config: EncoderConfig, asked: Sequence[int], until: int | None = None
) -> list[int]:
    """In order, without the last: its encoder is the run's own. UsageError for one not reached.

    `until` is kept, and none behind it.
    """
    if not asked and until is None:
        return []
    if not isinstance(config, TrainConfig):
        raise UsageError("--keep-at and --until are for a pretext that trains by steps")
    last = [("--until", until)] if until is not None else []
    for option, step in (*(("--keep-at", step) for step in asked), *last):
        if not 1 <= step <= config.steps:
            raise UsageError(f"{option} {step}: not a step from 1 to --steps {config.steps}")
    end = until or config.steps
    return sorted({step for step in (*asked, end) if step <= end} - {config.steps})


def kept_run(workspace: Path, training: PretrainIdentity, step: int) -> Run[PretrainRecord]:
    """The run of the encoder that this training has after `step`."""
    identity = training.model_copy(update={"kept": step})
    return Run(workspace, PretrainRecord, f"{training.method}-step-{step}", identity)


def not_kept(workspace: Path, training: PretrainIdentity, steps: Sequence[int]) -> list[int]:
    """Those of these steps whose encoder has no record yet."""
    return [step for step in steps if kept_run(workspace, training, step).record is None]


def check_kept(
    workspace: Path, training: PretrainIdentity, steps: Sequence[int], folder: Path
) -> None:
    """UsageError for a finished training, in `folder`, that did not keep one of these steps."""
    if missing := not_kept(workspace, training, steps):
        raise UsageError(
            f"{folder.name} is finished, and of --keep-at {','.join(map(str, missing))} was not "
            f"kept: remove {folder} and give the same command again, which trains it anew"
        )
