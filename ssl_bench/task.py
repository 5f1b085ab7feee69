"""The contracts: a Pretext trains an encoder without labels, an Evaluation or a Probe measures one.

A new one is a class in a file of its own and an entry point (`ssl_bench.pretext`,
`ssl_bench.eval`); nothing else has to change. docs/extend.md walks through both.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.optim import Optimizer

from ssl_bench.counter import Randomness
from ssl_bench.data.dataset import Dataset, SplitName
from ssl_bench.data.store import ImageStore, open_store
from ssl_bench.encoders import HALF, Encoder, EncoderSpec, Init, Normalization
from ssl_bench.features import Features
from ssl_bench.metrics import Resampled, resampled_mean
from ssl_bench.runtime import Precision, Runtime

Schedule = Literal["constant", "cosine", "step", "halve", "drop"]


class Config(BaseModel):
    """Settings that determine a number: frozen, typed, a phrase per field, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EncoderConfig(Config):
    """What every pretext shares: the encoder and its starting weights."""

    arch: str = Field(
        default="alexnet", description="encoder: alexnet, dcgan, timm:NAME or torchvision:NAME"
    )
    image_size: int = Field(default=227, ge=32, description="side of the network's input, px")
    width: float = Field(
        default=1.0, gt=0, le=4, description="factor on the channel counts of alexnet and dcgan"
    )
    init: Init = Field(
        default="gaussian",
        description="starting weights: N(0, 0.01²), scaled by fan-in, or as for dcgan N(0, 0.02²)",
    )
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="seed of weights, order, crops, masks and dropout"
    )

    def spec(self, normalization: Normalization) -> EncoderSpec:
        """The encoder that is asked for; `normalization` is that of the training images.

        dcgan takes pixels in [−1, 1] whatever the images are.
        """
        return EncoderSpec(
            arch=self.arch,
            image_size=self.image_size,
            width=self.width,
            normalization=HALF if self.arch == "dcgan" else normalization,
        )


class TrainConfig(Config):
    """What every training shares: `train` runs by it."""

    steps: int = Field(ge=1, description="updates")
    batch_size: int = Field(ge=1, description="images per update over all devices")
    lr: float = Field(gt=0, le=1e30, description="learning rate at the start")
    schedule: Schedule = Field(
        default="constant",
        description="the learning rate's course; step: a tenth after 2/7, 4/7 and 6/7 of the steps"
        "; halve: half after each eighth; drop: a tenth after 3/4",
    )
    precision: Precision = Field(
        default="auto", description="arithmetic; auto: bf16 on CUDA, else 32 bit"
    )


class PretextConfig(EncoderConfig, TrainConfig):
    """The settings of a trained pretext; a method adds its own by a subclass."""

    steps: int = Field(default=100_000, ge=1, description="updates")
    batch_size: int = Field(default=128, ge=1, description="images per update over all devices")
    lr: float = Field(default=1e-4, gt=0, le=1e30, description="learning rate at the start")


class Pretext(nn.Module, ABC):
    """A way to get an encoder without labels.

    The encoder comes with its starting weights, the same for every method with equal settings.
    A method that trains is also `Trainable`; one that takes its weights from the images without
    training is `Fitted`; one that has pictures to show is `Previewable`.
    Child modules are moved, wrapped for several devices and saved by the loop: call each as a
    whole in `train_step`, so that its gradients are averaged over the devices.
    """

    Config: ClassVar[type[EncoderConfig]]
    version: ClassVar[int]  # raised when a change makes other weights of the same settings

    def __init__(self, config: Any, encoder: Encoder, normalization: Normalization) -> None:
        super().__init__()
        self.config, self.normalization = config, normalization
        self.encoder = encoder


@dataclass(frozen=True)
class Step:
    """What a task is told of the step it is in.

    `index` counts from 0; `indices` int64 (B,) says which image of the store each row is, so a
    supervised task finds its targets; `random` draws per-image numbers.
    """

    index: int
    indices: Tensor
    random: Randomness
    backward: Callable[[Tensor], None] = field(repr=False)

    def update(self, optimizer: Optimizer, loss: Tensor, clip: float | None = None) -> None:
        """One update of one optimiser's parameters along the gradient of `loss`.

        A gradient of all these parameters together that is longer than `clip` is shortened to it.
        """
        optimizer.zero_grad(set_to_none=True)
        self.backward(loss)
        if clip is not None:
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            nn.utils.clip_grad_norm_(weights, clip)
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
class Fitted(Protocol):
    """A pretext without training that still looks at the images: its fit takes the loop's place."""

    def fit(self, store: ImageStore, device: torch.device) -> Mapping[str, float]:
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


@dataclass(frozen=True)
class Subject:
    """An encoder under evaluation: on the CPU, with weights that evaluations must not change.

    `layers` are those to measure, or the keys of other points of the harness. `pretext` opens the
    trained pretext that the encoder is a part of; None where there is none.
    """

    encoder: Encoder
    spec: EncoderSpec
    layers: tuple[str, ...]
    pretext: Callable[[], Pretext] | None = None


@dataclass(frozen=True)
class Point:
    """One number that a harness makes, and its place in a table.

    `key` is what the harness calls it, `row` the method that is printed, `column` what stands
    behind the protocol's name. A `free` one does not depend on the encoder: a baseline. `layer` is
    the one that is asked for to have it.
    """

    key: str
    row: str
    column: str = ""
    free: bool = False
    layer: str = ""


@dataclass(frozen=True)
class Outcome:
    """What an evaluation found at one point.

    `predictions` hold one row per test image, in the store's order, and the truth beside them: all
    that `Evaluation.score` needs. `selection` says what was chosen, on which split, and every
    point that lost.
    """

    predictions: Mapping[str, np.ndarray]
    selection: Mapping[str, Any] = field(default_factory=dict)


class Harness(ABC):
    """What turns an encoder and labelled images into numbers: an Evaluation or a Probe.

    `protocol` is the name and version of the canonical settings, which are the defaults of
    `Config`; a setting that differs is printed behind the name. `metric` is the headline, and
    `interval` says what its 95 % interval is over and how it is made.
    """

    Config: ClassVar[type["EvaluationConfig"]]
    protocol: ClassVar[str]
    source: ClassVar[str] = "not stated"  # of the settings: a publication, its code, or ours
    metric: str
    interval: str = "over the test images, Wilson's"
    units: ClassVar[Mapping[str, str]] = {}  # of metrics that are not percent
    digits: ClassVar[Mapping[str, int]] = {}  # behind the point, where it is not one
    lower: ClassVar[frozenset[str]] = frozenset()  # metrics of which less is better

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def shown(self) -> Sequence[str]:
        """The metrics that tables show, a column each."""
        return [self.metric]

    def usual_layers(self, encoder: Encoder) -> Sequence[str]:
        """What is measured where no layer is asked for: the last."""
        return encoder.layers[-1:]

    def points(self, subject: Subject, name: str) -> Sequence[Point]:
        """What is measured of the encoder called `name`: each of the layers asked for.

        Raises UsageError for an encoder that cannot be measured.
        """
        return [Point(layer, name, layer, layer=layer) for layer in subject.layers]

    def open(
        self,
        dataset: Dataset,
        split: SplitName,
        spec: EncoderSpec,
        *,
        skip_bad_images: bool = False,
        workers: int = 2,
    ) -> Any:
        """The decoded images of one split: squares for crops of the encoder's size.

        A harness that sees images in another form opens another store; it has `index` and a length.
        Raises DataError for images that cannot be used, unless `skip_bad_images`.
        """
        return open_store(
            dataset, split, spec.image_size, skip_bad_images=skip_bad_images, workers=workers
        )

    def check(self, train: Any, test: Any) -> None:  # noqa: B027
        """Raise UsageError or DataError for images or labels that cannot be measured on.

        Called before anything is computed.
        """

    @abstractmethod
    def score(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The metrics of an Outcome's predictions, in the units their names say.

        `NAME_low` and `NAME_high` are the 95 % interval of metric NAME. It is a function of the
        predictions alone, so a stored number can be computed again.
        """

    def resampled(self, predictions: Mapping[str, np.ndarray]) -> Resampled:
        """The shown metrics over the same resamples of the test images, for paired comparisons.

        Here for top-1, and for metrics that are the mean of stored values, one a test image.
        """
        found: Resampled = {}
        for name in self.shown:
            if name == "top1" and {"label", "predicted"} <= predictions.keys():
                hits = 100.0 * (predictions["label"] == predictions["predicted"])
                found |= resampled_mean(name, hits)
            elif name in predictions:
                found |= resampled_mean(name, predictions[name])
        return found

    def compact(self, predictions: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The predictions as an export keeps them: `score` and `resampled` are the same by them.

        In fewer bytes where a harness knows how, else the very same. What is compact stays so.
        """
        return predictions


class Evaluation(Harness):
    """A harness that sees the images, to train on them as it likes."""

    @abstractmethod
    def evaluate(
        self,
        subject: Subject,
        train: Any,
        test: Any,
        runtime: Runtime,
        folders: Mapping[str, Path],
    ) -> Iterator[tuple[str, Outcome]]:
        """Yield each of `subject.layers` with its Outcome, as soon as it is known.

        `train` and `test` are what `open` returned. What is yielded is recorded at once. `folders`
        has one per layer, for checkpoints and pictures.
        """


class Probe(Harness):
    """A harness that sees frozen features: all probes that are asked for share one pass."""

    @abstractmethod
    def probe(self, layer: str, train: Features, test: Features) -> Outcome:
        """Measure one layer. Raises DataError, naming the layer, for features it cannot use."""


class EvaluationConfig(Config):
    """What every evaluation shares."""

    seed: int = Field(
        default=0, ge=0, lt=2**32, description="seed of splits, draws and fresh weights"
    )

    def deviations(self) -> Sequence[str]:
        """`name=value` of each setting that differs from the protocol's; the seed never counts.

        A protocol's precision is 32 bit: what a GPU computes in bf16 says so.
        """
        fields = type(self).model_fields
        canonical = {name: field.default for name, field in fields.items()} | {"precision": "32"}
        return [
            f"{name}={_plain(getattr(self, name))}"
            for name in fields
            if name != "seed" and getattr(self, name) != canonical[name]
        ]


def _plain(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


class ProbeConfig(EvaluationConfig):
    """What every probe of frozen features shares."""

    dimensions: int = Field(
        default=9600, ge=1, description="most numbers that a layer's map is pooled to"
    )
