"""What a training says of its course, told to the trackers that a team uses: `--log wandb,mlflow`.

`log.jsonl` in the run's folder is the log; a tracker hears the same events as they are written:
the run's name and settings, a line of values at a step, and that it is done or was stopped. Nothing
of it is part of a key, and no number depends on it. A run that was killed goes on as the same run
of the tracker, and what a tracker has heard of a step it is not told again. What a tracker had not
written yet when the process was killed is missing there; log.jsonl has it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, Self

from ssl_bench.errors import extra, unknown

PROJECT = "ssl-bench"
Values = Mapping[str, float]


class Tracker(Protocol):
    """What hears of one run."""

    def line(self, step: int, values: Values) -> None:
        """The values of a step."""
        ...

    def finish(self, done: bool) -> None:
        """The training is done, or it was stopped and may go on."""
        ...


class TensorBoard:
    """Event files in the run's folder: `tensorboard --logdir runs`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        with extra("log"):
            import tensorboard  # noqa: F401  # else torch raises an error of its own

        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"))
        self.writer.add_text("settings", json.dumps({"run": run_name(folder), **settings}))

    def line(self, step: int, values: Values) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()  # a killed process leaves what was logged

    def finish(self, done: bool) -> None:
        self.writer.close()


class WandB:
    """Weights & Biases; WANDB_PROJECT, WANDB_MODE and the like are its own."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        with extra("log"):
            import wandb  # pyright: ignore[reportMissingImports]
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run_id(folder),
            name=run_name(folder),
            config=dict(settings),
            dir=str(folder),
            resume="allow",
            reinit="create_new",  # beside a run that the program has of its own
        )

    def line(self, step: int, values: Values) -> None:
        self.run.log(dict(values), step=step)

    def finish(self, done: bool) -> None:
        self.run.finish(exit_code=0 if done else 1)


class MLflow:
    """MLflow, at MLFLOW_TRACKING_URI or where it keeps runs by itself."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        with extra("log"):
            from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]
        self.client = MlflowClient()
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self.client.get_experiment_by_name(project)
        where = known.experiment_id if known else self.client.create_experiment(project)
        # It draws the ids of its runs itself: ours is a tag, by which a continued run is found.
        mine = {"ssl_bench.run": run_id(folder)}
        query = f"tags.`ssl_bench.run` = '{run_id(folder)}'"
        found = self.client.search_runs([where], query, max_results=1)
        if found:
            self.run = found[0].info.run_id
            self.client.update_run(self.run, status="RUNNING")
            return
        self.run = self.client.create_run(where, run_name=run_name(folder), tags=mine).info.run_id
        for key, value in settings.items():
            self.client.log_param(self.run, key, value)

    def line(self, step: int, values: Values) -> None:
        for name, value in values.items():
            self.client.log_metric(self.run, name, value, step=step)

    def finish(self, done: bool) -> None:
        self.client.set_terminated(self.run, "FINISHED" if done else "KILLED")


class Trackio:
    """Trackio: a table on this machine, `trackio show`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        with extra("log"):
            import trackio  # pyright: ignore[reportMissingImports]
        self.run = trackio.init(
            project=PROJECT, name=run_name(folder), config=dict(settings), resume="allow"
        )

    def line(self, step: int, values: Values) -> None:
        self.run.log(dict(values), step=step)

    def finish(self, done: bool) -> None:
        self.run.finish()


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow, "trackio": Trackio,
}  # fmt: skip


class Log:
    """The trackers of one run, and the last step that they have heard of.

    A context manager around the training: they hear how it ended.
    """

    def __init__(self, names: Sequence[str], folder: Path, settings: Mapping[str, Any]) -> None:
        self.told = folder / "log.told"
        self.last = int(self.told.read_text()) if self.told.exists() else 0
        self.trackers = [TRACKERS[name](folder, settings) for name in names]

    def line(self, step: int, values: Values) -> None:
        """Unless it was told before: a killed run does the steps behind its checkpoint again."""
        if step <= self.last or not self.trackers:
            return
        for tracker in self.trackers:
            tracker.line(step, values)
        self.told.write_text(str(step))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for tracker in self.trackers:
            tracker.finish(done=kind is None)


def check_trackers(names: Sequence[str]) -> None:
    """UsageError for a name that is none, and for one that is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS)
        with extra("log"):
            if find_spec(name) is None:  # called as their packages; importing takes seconds
                raise ModuleNotFoundError(name=name)


def run_name(folder: Path) -> str:
    """`pretrain/context-encoder-3f9a…`: a folder carries its run's key, so it stays the same."""
    return f"{folder.parent.name}/{folder.name}"


def run_id(folder: Path) -> str:
    """The name as 16 letters and digits, for trackers that draw ids otherwise."""
    return hashlib.sha256(run_name(folder).encode()).hexdigest()[:16]
