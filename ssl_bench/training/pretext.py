"""The contract of a pretext: it trains an encoder without labels.

A new one is a class in a file of its own and an entry point (`ssl_bench.pretext`); nothing else has
to change. docs/extend.md walks through it.
"""

from abc import ABC
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ssl_bench.counter import Randomness
from ssl_bench.data.normalization import Normalization
from ssl_bench.data.store.concat import Squares
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.errors import UsageError
from ssl_bench.training.batches import Images
from ssl_bench.training.config import Config as Config  # authors have all of the contract here
from ssl_bench.training.config import EncoderConfig, TrainConfig
from ssl_bench.training.config import PretextConfig as PretextConfig


class Pretext(nn.Module, ABC):
    """A way to get an encoder without labels.

    The encoder comes with its starting weights, the same for every method with equal settings.
    A method that trains is also `Trainable`; one that takes its weights from the images without
    training is `Fitted`; one that has pictures to show is `Previewable`.
    Child modules are moved, wrapped for several devices and saved by the loop: call each as a
    whole in `train_step`, so that its gradients are averaged over the devices. A teacher is a child
    without gradients, a queue a buffer: both are saved, too, and move with the task.
    """

    Config: ClassVar[type[EncoderConfig]]
    version: ClassVar[int]  # raised when a change makes other weights of the same settings
    baseline: ClassVar[int | None] = None  # place among the baselines of tables; 0: the floor
    exported: ClassVar[str] = "encoder"  # the child whose weights are saved as the encoder's

    def __init__(self, config: Any, encoder: Encoder, normalization: Normalization) -> None:
        super().__init__()
        self.config, self.normalization = config, normalization
        self.encoder = encoder

    def prepare(self, images: int) -> None:
        """Make the buffers that hold something of each image, before any weight is loaded.

        Called once when a run is begun, resumed or opened; `images` is how many there are.
        """


@dataclass(frozen=True)
class Step:
    """What a task is told of the step it is in.

    `index` counts from 0; `indices` int64 (B,) says which image of the store each row is, so a
    supervised task finds its targets; `random` draws per-image numbers, `random.view(name)` those
    of one of several views. `done` is the share of all steps before this one, from 0 towards 1, for
    momenta and temperatures with a course of their own. `batch` is all that the store gave.
    `gather` makes (D·B, …) of (B, …) on each of D devices, with gradients: see devices.py.
    """

    index: int
    indices: Tensor
    random: Randomness
    backward: Callable[[Tensor], None] = field(repr=False)
    done: float = 0.0
    batch: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    gather: Callable[[Tensor], Tensor] = field(default=lambda tensor: tensor, repr=False)

    def update(
        self,
        optimizer: Optimizer,
        loss: Tensor,
        clip: float | None = None,
        frozen: Iterable[nn.Parameter] = (),
    ) -> None:
        """One update of one optimiser's parameters along the gradient of `loss`.

        A gradient of all these parameters together that is longer than `clip` is shortened to it.
        Those that are `frozen` in this step stay as they are; so do their optimiser's memories.
        """
        optimizer.zero_grad(set_to_none=True)
        self.backward(loss)
        if clip is not None:
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            nn.utils.clip_grad_norm_(weights, clip)
        for weight in frozen:  # only now: several devices wait for the gradients of all
            weight.grad = None
        optimizer.step()


@runtime_checkable
class Trainable(Protocol):
    """What the loop trains: a module that owns its optimisers and its one update."""

    def optimizers(self) -> list[Optimizer]:
        """All optimisers, in a fixed order: the loop saves them and schedules their rates."""
        ...

    def train_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor]:
        """One update on raw images, uint8 (B, 3, R, R); returns scalars to log, detached.

        Calls `step.update(optimizer, loss)` once for each optimiser it wants to advance.
        """
        ...


@runtime_checkable
class Between(Protocol):
    """A task that looks at the whole set before each epoch: to cluster it, say."""

    def between(self, store: Images, epoch: int) -> None:
        """Called before the first step of each epoch, from 0, without gradients.

        What it finds is kept in buffers. Nothing but these, the weights and the epoch may decide
        it, so that a resumed run is the same run. Every device calls it; the first one's buffers
        count.
        """
        ...


@runtime_checkable
class Samples(Between, Protocol):
    """A task that also decides which images an epoch visits, some more often than others.

    `visits`, a buffer int64 (N,) that `prepare` makes and `between` may change, names as many
    images as there are; the epoch visits each place of it once, in its own order.
    """

    visits: Tensor


def check_training(kind: type[Pretext]) -> None:
    """UsageError unless a pretext has all that training needs, or nothing of it.

    Protocols are recognised by their methods' names: with one misspelt, a method would be recorded
    with its starting weights.
    """
    parts: dict[str, bool] = {n: hasattr(kind, n) for n in ("optimizers", "train_step")}
    parts["a Config made from TrainConfig"] = issubclass(kind.Config, TrainConfig)
    has, lacks = ([part for part, there in parts.items() if there is wanted]
                  for wanted in (True, False))  # fmt: skip
    if has and lacks:
        raise UsageError(
            f"{kind.__module__}.{kind.__name__} has {has[0]} and lacks {' and '.join(lacks)}: "
            "a pretext trains with all of them, or with none"
        )


@runtime_checkable
class Fitted(Protocol):
    """A pretext without training that still looks at the images: its fit takes the loop's place."""

    def fit(self, store: Squares, device: torch.device) -> Mapping[str, float]:
        """Set the weights, once, in one process; returns numbers for the record's details.

        The module is on the CPU and may use `device`. What is drawn follows from the
        configuration's seed: a fit that was killed begins anew and must end with the same weights.
        """
        ...


@runtime_checkable
class Previewable(Protocol):
    """A pretext that can show what it does."""

    def preview(self, images: Tensor, random: Randomness) -> Mapping[str, Tensor]:
        """Rows of pictures by title, each float (B, 3, S, S) in [0, 1]."""
        ...


@runtime_checkable
class Inpaints(Protocol):
    """A pretext that fills holes, for pictures and for the evaluation of inpainting."""

    @property
    def reach(self) -> float:
        """Side of the central square in which holes may lie, as a share of the image's side."""
        ...

    def fill(self, images: Tensor, holes: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) and float (B, 1, S, S), 1 where missing -> float (B, 3, S, S), 0 to 1.

        Outside the holes it is the image; in them nothing of the image is looked at. S is the
        pretext's image size. Raises UsageError for a hole that goes beyond the reach.
        """
        ...
