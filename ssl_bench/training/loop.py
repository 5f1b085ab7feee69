"""The one training loop, for pretexts and for evaluations that train.

It owns data, devices, precision, schedule, checkpoints, progress and logging; what is learnt
belongs to the task. Every random number is a function of (seed, step, position in the global
batch): a run killed at any moment and started again ends with the same weights.
"""

import json
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer

from ssl_bench.counter import Ahead, Randomness, StepNumbers, derive
from ssl_bench.errors import BenchError, DataError, Degenerate, UsageError
from ssl_bench.files import written_at_once
from ssl_bench.progress import progress, say, waiting
from ssl_bench.runtime import Runtime, resolve_precision
from ssl_bench.training.batches import Batches, Images
from ssl_bench.training.checkpoint import damaged, load_checkpoint, load_optimizer, trim_log
from ssl_bench.training.collapse import collapse_warning
from ssl_bench.training.devices import (
    attend_in_products,
    copy_buffers,
    gather,
    place,
    saying_what_is_missing,
    seed_generators,
    shared_statistics,
    unwrap,
)
from ssl_bench.training.log import Log
from ssl_bench.training.pretext import Between, Samples, Step, TrainConfig
from ssl_bench.training.probe import Look
from ssl_bench.training.schedule import rate_factor
from ssl_bench.training.signals import stop_request

LOG_LINES = 200  # about so many lines a run
SYNC_STEPS = 20  # at most so many steps on a GPU, or on several, before a stop is acted upon


class Interrupted(BenchError):
    """Stopped by Ctrl-C or SIGTERM with a checkpoint written; the same command continues."""

    exit_code = 130


@dataclass(frozen=True)
class Report:
    """What a finished training says of itself."""

    images_per_second: float
    data_wait: float  # share of the time, 0 to 1
    resumed_at: int
    last: Mapping[str, float]
    seconds: float = 0.0  # of all processes that a run was continued by, one after the other


Keep = Mapping[int, Callable[[Report], None]]  # by step: what is called after it, to look only


def train(
    task: Any,
    store: Images,
    config: TrainConfig,
    seed: int,
    runtime: Runtime,
    folder: Path,
    *,
    subset: np.ndarray | None = None,
    title: str = "training",
    keep: Keep | None = None,
    until: int | None = None,
    look: Look | None = None,
) -> Report:
    """Train `task` (a Trainable nn.Module) on images of `store`, or on those in `subset`.

    `folder` receives `checkpoint.pt` and `log.jsonl`; a run that finds a checkpoint there goes on
    from it. Of `keep`, the first process calls what stands at a step when it is done, before a
    checkpoint of it; the steps must be the same in all processes. Behind the step `until` a
    checkpoint is written and the rest left for another time. What `look` finds, in the first
    process, is logged beside the losses. Raises UsageError for a batch
    that devices cannot share, and for a step to keep that was passed before; DataError for a loss
    that is not finite, Interrupted on Ctrl-C.
    """
    precision = resolve_precision(config.precision)
    fabric = runtime.fabric(precision)
    if config.batch_size % fabric.world_size:
        raise UsageError(
            f"--batch-size {config.batch_size} is not a multiple of the {fabric.world_size} devices"
        )
    share = config.batch_size // fabric.world_size
    positions = torch.arange(share) + share * fabric.global_rank
    every = np.arange(len(store)) if subset is None else subset
    batches = Batches(store, torch.as_tensor(every), seed, config.batch_size, positions)
    saved = load_checkpoint(folder / "checkpoint.pt", task)
    on_gpu = fabric.device.type == "cuda"
    place(task, fabric, channels_last=not (on_gpu and precision == "32"))
    if not on_gpu and precision == "bf16":
        attend_in_products(task)
    task.train()
    first = share * fabric.global_rank
    run = _Run(task, fabric, config, seed, runtime, folder, first, keep or {}, look)
    run.resume(saved)
    with run.trackers:
        run.loop(batches, positions.to(fabric.device), title, until or config.steps)
    report = run.report()
    unwrap(task)
    return report


class _Run:
    """One training from its first or resumed step to its last."""

    def __init__(
        self,
        task: Any,
        fabric: Fabric,
        config: TrainConfig,
        seed: int,
        runtime: Runtime,
        folder: Path,
        first: int,
        keep: Keep,
        look: Look | None,
    ) -> None:
        self.task, self.fabric, self.config, self.seed = task, fabric, config, seed
        self.runtime, self.folder = runtime, folder
        self.first = first  # this process's first position in the global batch
        self.keep, self.look = keep, look
        self.halved = resolve_precision(config.precision) != "32"
        self.optimizers: list[Optimizer] = task.optimizers()
        self.rates = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        self.step = self.resumed_at = 0
        self.pending: list[tuple[int, Mapping[str, Tensor]]] = []
        self.last: dict[str, float] = {}
        self.warned = False
        self.seconds, self.waited, self.done = 0.0, 0.0, 0
        self.saved_at = time.monotonic()
        names = runtime.log if fabric.is_global_zero else ()
        self.trackers = Log(names, folder, config.model_dump(mode="json"))

    def loop(self, batches: Batches, positions: Tensor, title: str, until: int) -> None:
        """The steps that are left; what happens between them, all processes do at the same step."""
        on_gpu = self.fabric.device.type == "cuda"
        ahead = Ahead(self.seed, batches.positions) if on_gpu else None
        read = self._read(batches, range(self.step, until), ahead)
        shown: Iterator[Any] = read
        if self.fabric.is_global_zero:
            shown = progress(read, title, until, self.step, "--steps")
        interval = max(1, self.config.steps // LOG_LINES)
        with closing(read), stop_request() as asked:
            since = time.monotonic()
            for batch, indices, numbers in shown:
                arrived = time.monotonic()
                drawn = None
                if ahead is not None and numbers is not None:
                    moved = numbers.to(self.fabric.device, non_blocking=True)
                    drawn = StepNumbers(ahead, moved, positions)
                random = Randomness(self.seed, self.step, positions, drawn=drawn)
                self._advance(batch, indices, random)
                last = self.step == self.config.steps
                looks = self.look is not None and (last or self.look.is_due(self.step, batches))
                logged = last or looks or self.step % interval == 0
                synced = logged or self._is_sync_step()
                if synced:
                    self._check()
                now = time.monotonic()
                self.waited += arrived - since
                self.seconds += now - since
                self.done += 1
                if logged:
                    self._log(looks)
                if last or self.step in self.keep:
                    self._check_weights()
                # Before the checkpoint: a run that goes on from one has kept all that is behind it.
                if self.step in self.keep and self.fabric.is_global_zero:
                    self.keep[self.step](self.report())
                if synced:
                    self._save_or_stop(bool(asked))
                since = time.monotonic()
        if self.step == until < self.config.steps:
            self.save()

    def _read(
        self, batches: Batches, steps: range, ahead: Ahead | None
    ) -> Generator[tuple[Mapping[str, Tensor], Tensor, Tensor | None]]:
        """The batches of these steps, read ahead: not over the beginning of an epoch, if the task
        looks at the whole set there and may choose what is read.
        """
        for part in batches.epochs(steps) if isinstance(self.task, Between) else [steps]:
            if part:
                self._begin_epoch(batches, part.start)
            with closing(batches.read_ahead(part, self.fabric.device, ahead)) as read:
                yield from read

    def _begin_epoch(self, batches: Batches, step: int) -> None:
        """At the first step of an epoch, on every device, for a task that looks at the whole set.

        A run that is resumed here begins the epoch again from the state that it began it from; one
        that is resumed behind it has in its buffers what was decided.
        """
        task: Any = self.task
        epoch, since = batches.epoch(step), time.monotonic()
        if isinstance(task, Between) and epoch is not None:
            with torch.no_grad(), self.fabric.autocast(), waiting(f"before epoch {epoch + 1}"):
                task.between(batches.store, epoch)
            copy_buffers(self.task, self.fabric)
            self.task.train()
        if isinstance(task, Samples):
            batches.subset = task.visits.cpu()
        self.waited -= time.monotonic() - since  # the batch comes later, but not for want of data

    def _advance(self, batch: Mapping[str, Tensor], indices: Tensor, random: Randomness) -> None:
        """One step: everything random in it follows from its number and the positions."""
        device, config = self.fabric.device, self.config
        factor = rate_factor(config.schedule, self.step, config.steps, config.warmup)
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        # For modules that draw from torch's own generator, such as nn.Dropout.
        seed_generators(derive(self.seed, "torch", self.step, self.first) >> 1, device)
        moved = {name: rows.to(device, non_blocking=True) for name, rows in batch.items()}
        step = Step(
            index=self.step,
            indices=indices.to(device, non_blocking=True),
            random=random,
            backward=self._backward,
            done=self.step / config.steps,
            batch=moved,
            gather=partial(gather, self.fabric),
        )
        said = saying_what_is_missing(self.task)
        with said, self.fabric.autocast(), shared_statistics(self.fabric):
            values = self.task.train_step(moved["images"], step)
        self.step += 1
        self.pending.append((self.step, values))

    def _backward(self, loss: Tensor) -> None:
        """Outside of autocast, in which `train_step` runs: gradients take their forward's types."""
        with (
            torch.autocast(self.fabric.device.type, enabled=False) if self.halved else nullcontext()
        ):
            self.fabric.backward(loss)

    def _is_sync_step(self) -> bool:
        """Whether values are looked at, and stops and checkpoints decided, after this step.

        A GPU is waited for then, and so are the other processes; one on the CPU waits for nobody.
        """
        alone = self.fabric.world_size == 1 and self.fabric.device.type == "cpu"
        every = self.runtime.checkpoint_steps
        due = self.step in self.keep or bool(every and self.step % every == 0)
        return alone or due or self.step % SYNC_STEPS == 0

    def _check(self) -> None:
        """Bring over the pending values, means over all devices; DataError if one is not finite.

        All devices hold equal shares of the batch, so the mean of their means is the batch's; and
        what one of them cannot use stops all of them, at the same step.
        """
        device, values = self.fabric.device, [v for _, of in self.pending for v in of.values()]
        scalars = [torch.as_tensor(v, dtype=torch.float64, device=device) for v in values]
        means = iter(list[float]())
        if scalars:  # a task may have nothing to log
            together = self.fabric.all_reduce(torch.stack(scalars).detach(), reduce_op="mean")
            means = iter(cast(Tensor, together).tolist())  # one transfer for all
        for step, names in self.pending:
            self.last = {name: next(means) for name in names}
            for name, value in self.last.items():
                if not math.isfinite(value):
                    raise Degenerate(self._diverged(name, value, step))
        self.pending.clear()
        warning = collapse_warning(self.last, self.step / self.config.steps)
        if warning and not self.warned and self.fabric.is_global_zero:
            say(warning)
            self.warned = True

    def _check_weights(self) -> None:
        """DataError unless all weights are finite: the last update shows in no loss yet."""
        state = self.task.state_dict()
        wrong = [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]
        # Statistics of batch normalisation are each device's own: one may be off alone.
        if any(self._any(bool(wrong))):
            name = wrong[0] if wrong else "a weight on another device"
            raise Degenerate(self._diverged(name, "not finite", self.step))

    def _save_or_stop(self, asked: bool) -> None:
        """A checkpoint where one is due or any process was asked to stop: then Interrupted."""
        # Clocks differ between processes: the first one's decides.
        stop, due = self._any(asked, self.fabric.is_global_zero and self._due())
        if stop or due:
            self.save()
        if stop:
            raise Interrupted(
                f"stopped after step {self.step} of {self.config.steps}; "
                "the same command continues from there"
            )

    def _any(self, *flags: bool) -> list[bool]:
        """Whether each holds in any process; all of them must ask."""
        if self.fabric.world_size == 1:
            return list(flags)
        mine = torch.tensor(flags, dtype=torch.float32, device=self.fabric.device)
        return [n > 0 for n in cast(Tensor, self.fabric.all_reduce(mine, reduce_op="max")).tolist()]

    def _diverged(self, name: str, value: object, step: int) -> str:
        kept = "the last checkpoint is kept; " if self._checkpoint.exists() else ""
        return f"{name} is {value} at step {step}: training stopped, {kept}lower --lr"

    def _log(self, looks: bool) -> None:
        if not self.fabric.is_global_zero:
            return
        found = self.look.measure() if looks and self.look else {}
        line = {
            "step": self.step,
            **self.last,
            **found,
            "images_per_second": round(self._speed(), 1),
            "data_wait": round(self.waited / max(self.seconds, 1e-9), 4),
        }
        path = self.folder / "log.jsonl"
        try:
            with open(path, "a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:  # a write's error does not name its file
            raise DataError(
                f"cannot write {path}: {error.strerror}; make room or choose another --workspace"
            ) from error
        self.trackers.line(self.step, {k: v for k, v in line.items() if k != "step"})

    def _speed(self) -> float:
        return self.done * self.config.batch_size / max(self.seconds, 1e-9)

    def report(self) -> Report:
        wait = self.waited / max(self.seconds, 1e-9)
        return Report(self._speed(), wait, self.resumed_at, dict(self.last), self.seconds)

    # ---- checkpoints

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def _due(self) -> bool:
        steps = self.runtime.checkpoint_steps
        if self.step == self.config.steps:
            return False
        if steps is not None:
            return self.step % steps == 0
        return time.monotonic() - self.saved_at >= self.runtime.checkpoint_seconds

    def save(self) -> None:
        """Write the state beside the old one, then put it in its place at once."""
        self._check_weights()
        self.saved_at = time.monotonic()
        if not self.fabric.is_global_zero:
            return
        state = {
            "step": self.step,
            "task": self.task.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "last": self.last,
            "clock": [self.seconds, self.waited, self.done],
        }
        with written_at_once(self._checkpoint) as scratch, open(scratch, "wb") as file:
            torch.save(state, file)

    def resume(self, saved: Mapping[str, Any] | None) -> None:
        """Take up optimisers and step from a checkpoint."""
        if saved is not None:
            try:
                for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
                    load_optimizer(optimizer, state)
                self.step, self.last = int(saved["step"]), dict(saved["last"])
                self.seconds, self.waited, self.done = map(float, saved["clock"])
                if not 0 < self.step <= self.config.steps:  # stopped after the last: none is left
                    raise ValueError(f"step {self.step}")
            except Exception as error:  # whatever torch meets in a damaged file
                raise damaged(self._checkpoint, error) from error
            if passed := [str(step) for step in self.keep if step <= self.step]:
                raise UsageError(
                    f"the run goes on at step {self.step}, and of --keep-at {','.join(passed)} was "
                    f"not kept: remove {self.folder} to begin anew, or leave it out of --keep-at"
                )
            if self.fabric.is_global_zero:
                say(f"continuing at step {self.step} of {self.config.steps}")
        if self.fabric.is_global_zero:
            trim_log(self.folder / "log.jsonl", self.step)
        self.resumed_at = self.step
