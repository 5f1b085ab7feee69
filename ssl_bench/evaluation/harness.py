"""The contracts of what measures an encoder: an Evaluation sees images, a Probe frozen features.

A new one is a class in a file of its own and an entry point (`ssl_bench.eval`); nothing else has to
change. docs/extend.md walks through it.

Tables ask a harness for its metrics, so no file of one imports torch but where it computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from ssl_bench.data.dataset import Dataset, SplitName
from ssl_bench.evaluation.metrics import MEAN_PER_CLASS, TOP1, Metric
from ssl_bench.evaluation.metrics.by_class import mean_per_class, mean_per_class_interval
from ssl_bench.evaluation.metrics.precision import most_frequent, top1_interval
from ssl_bench.evaluation.metrics.resampling import Intervals, Resampled, resampled_mean
from ssl_bench.runtime import Runtime
from ssl_bench.training.config import Config

if TYPE_CHECKING:
    from ssl_bench.encoders.encoder import Encoder
    from ssl_bench.encoders.spec import EncoderSpec
    from ssl_bench.evaluation.features import Features
    from ssl_bench.training.pretext import Pretext


@dataclass(frozen=True)
class Subject:
    """An encoder under evaluation: on the CPU, with weights that evaluations must not change.

    `layers` are those to measure, or the keys of other points of the harness. `pretext` opens the
    trained pretext that the encoder is a part of; None where there is none. `name` is what the
    encoder is called, `data` the set that it is measured on: for titles.
    """

    encoder: Encoder
    spec: EncoderSpec
    layers: tuple[str, ...]
    pretext: Callable[[], Pretext] | None = None
    name: str = ""
    data: str = ""

    def title(self, protocol: str, key: str) -> str:
        """What stands above a picture: of the protocol as printed, at a layer or another point."""
        return f"{protocol}, {key}: {self.name or 'an encoder'} on {self.data or 'its images'}"


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

    `predictions` hold one row per test image, in the store's order, one test after the other, and
    the truth beside them: all that `Evaluation.score` needs. `selection` says what was chosen, on
    which split, and every point that lost.
    """

    predictions: Mapping[str, np.ndarray]
    selection: Mapping[str, Any] = field(default_factory=dict)


class Harness(ABC):
    """What turns an encoder and labelled images into numbers: an Evaluation or a Probe.

    `protocol` is the name and version of the canonical settings, which are the defaults of
    `Config`; a setting that differs is printed behind the name. `metrics` are those that tables
    may show, the protocol's headline first. `splits` are those of the dataset that it sees, `tests`
    those among them whose images it predicts: query of gallery and query, or many tests.
    """

    Config: ClassVar[type[EvaluationConfig]]
    protocol: ClassVar[str]
    source: ClassVar[str] = "not stated"  # of the settings: a publication, its code, or ours
    splits: Sequence[SplitName] = ("train", "test")
    tests: Sequence[SplitName] = ("test",)
    metrics: Sequence[Metric]  # of the class, or of the instance where settings name them

    def __init__(self, config: Any) -> None:
        self.config = config

    def shown(self, predictions: Mapping[str, np.ndarray]) -> Sequence[Metric]:
        """The metrics that tables show of these predictions, in the order of the columns.

        The headline is the first of `metrics` that is among them.
        """
        return self.metrics

    def usual_layers(self, encoder: Encoder) -> Sequence[str]:
        """What is measured where no layer is asked for: the last, `pooled` where there is one.

        A harness that looks at places takes the last of `encoder.maps`.
        """
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
        from ssl_bench.data.store.squares import open_store

        return open_store(
            dataset, split, spec.image_size, skip_bad_images=skip_bad_images, workers=workers
        )

    def check(self, splits: Mapping[SplitName, Any]) -> None:  # noqa: B027
        """Raise UsageError or DataError for images or labels that cannot be measured on.

        `splits` are what `open` returned. Called before anything is computed.
        """

    @abstractmethod
    def score(self, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
        """All metrics of an Outcome's predictions, in their units: point estimates, quickly.

        It is a function of the predictions alone, so a stored number can be computed again.
        """

    def intervals(self, predictions: Mapping[str, np.ndarray]) -> Intervals:
        """95 % intervals of those metrics that have one; computed once, when a run is finished.

        Here Wilson's for `top1` with `label` and `predicted`.
        """
        if not {"label", "predicted"} <= predictions.keys():
            return {}
        return {TOP1.name: top1_interval(predictions["label"], predictions["predicted"])}

    def resampled(self, predictions: Mapping[str, np.ndarray]) -> Resampled:
        """The shown metrics over the same resamples of the test images, for paired comparisons.

        Here for top-1, and for metrics that are the mean of stored values, one a test image.
        """
        found: Resampled = {}
        for name in (metric.name for metric in self.shown(predictions)):
            if name == "top1" and {"label", "predicted"} <= predictions.keys():
                hits = 100.0 * (predictions["label"] == predictions["predicted"])
                found |= resampled_mean(name, hits)
            elif name in predictions:
                found |= resampled_mean(name, predictions[name])
        return found

    def chance(self, predictions: Mapping[str, np.ndarray]) -> Mapping[str, float]:
        """What is scored without a look at the images, by metric, from the truth beside them.

        Here with `label`: of `top1` the share of the most frequent class among the test images, of
        `mean_per_class` that of one class.
        """
        if "label" not in predictions:
            return {}
        label, known = predictions["label"], MEAN_PER_CLASS.name in predictions
        by_class = {MEAN_PER_CLASS.name: 100 / len(np.unique(label))} if known else {}
        return {TOP1.name: most_frequent(label), **by_class}

    def compact(self, predictions: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The predictions as an export keeps them: `score` and `resampled` are the same by them.

        In fewer bytes where a harness knows how, else the very same. What is compact stays so.
        """
        return predictions


def wanted_layers(harness: Harness, encoder: Encoder, asked: Sequence[str]) -> tuple[str, ...]:
    """The layers to measure: those asked for (`all` stands for all), or the harness's own.

    Raises UsageError for one that the encoder lacks.
    """
    layers = tuple(dict.fromkeys(asked)) or tuple(harness.usual_layers(encoder))
    wanted = encoder.layers if "all" in layers else layers
    encoder.check_layers(wanted)
    return tuple(wanted)


def score(harness: Harness, predictions: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The harness's metrics, and `mean_per_class` where the predictions hold its values."""
    return harness.score(predictions) | mean_per_class(predictions)


def score_with_intervals(
    harness: Harness, predictions: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """A record's metrics: each of `score`, and `NAME_low` and `NAME_high` where it has an interval.

    `mean_per_class` is there where the predictions hold its values. Intervals of what is no metric
    are left out.
    """
    intervals = harness.intervals(predictions) | mean_per_class_interval(predictions)
    found = {}
    for name, value in score(harness, predictions).items():
        found[name] = value
        if name in intervals:
            found[f"{name}_low"], found[f"{name}_high"] = intervals[name]
    return found


def printing(harness: Harness, predictions: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What a record's details say of its metrics, for tables.

    Units that are percent and digits that are one are left out. `mean_per_class` is the headline
    where the predictions hold its values: their set is reported by it.
    """
    by_class = [MEAN_PER_CLASS] if MEAN_PER_CLASS.name in predictions else []
    shown = [*by_class, *harness.shown(predictions)]
    headline = next(metric for metric in (*by_class, *harness.metrics) if metric in shown)
    return {
        "metric": headline.name,
        "shown": [metric.name for metric in shown],
        "units": {metric.name: metric.unit for metric in shown if metric.unit != Metric.unit},
        "digits": {m.name: m.digits for m in shown if m.digits != Metric.digits},
        "lower": sorted(metric.name for metric in shown if metric.lower),
        "interval": headline.interval,
    }


class Evaluation(Harness):
    """A harness that sees the images, to train on them as it likes."""

    @abstractmethod
    def evaluate(
        self,
        subject: Subject,
        splits: Mapping[SplitName, Any],
        runtime: Runtime,
        folders: Mapping[str, Path],
    ) -> Iterator[tuple[str, Outcome]]:
        """Yield each of `subject.layers` with its Outcome, as soon as it is known.

        `splits` are what `open` returned. What is yielded is recorded at once. `folders`
        has one per layer, for checkpoints and pictures.
        """


class Probe(Harness):
    """A harness that sees frozen features: all probes that are asked for share one pass."""

    @abstractmethod
    def probe(self, layer: str, splits: Mapping[SplitName, Features]) -> Outcome:
        """Measure one layer. Raises DataError, naming the layer, for features it cannot use."""


class EvaluationConfig(Config):
    """What every evaluation shares."""

    seed: int = Field(
        default=0, ge=0, lt=2**32, description="seed of splits, draws and fresh weights"
    )

    def deviations(self) -> Sequence[str]:
        """`name=value` of each setting that differs from the protocol's; the seed never counts."""
        return [
            f"{name}={_plain(getattr(self, name))}"
            for name, field in type(self).model_fields.items()
            if name != "seed" and getattr(self, name) != field.default
        ]


def _plain(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


class ProbeConfig(EvaluationConfig):
    """What every probe of frozen features shares."""

    dimensions: int = Field(
        default=9600, ge=1, description="most numbers that a layer's map is pooled to"
    )
