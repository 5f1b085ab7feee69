"""The family of comparisons: which differences of a table are tested together.

What was declared is corrected by Holm for all of it; whatever else a table prints is exploratory
and not adjusted. A suite declares it (`headline`, `[[contrast]]`), and `family.json` beside its
tables keeps it, so that they can be made again from what lies there; labels and order of rows, too.
Where nothing was declared, each row of an encoder is compared with its baselines, at the first
column of each evaluation.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ssl_bench import catalogue
from ssl_bench.errors import BenchError, DataError
from ssl_bench.evaluation.suite import (
    LABEL,
    EvaluateEntry,
    ExternalEntry,
    Suite,
    evaluation_config,
    pretrain_config,
)
from ssl_bench.records.record import EvaluationRecord
from ssl_bench.tables.measured import Measured
from ssl_bench.tables.names import HIDDEN

FILE = "family.json"
LARGEST = 64 << 10  # bytes of it
Comparison = tuple[str, str, str]  # row, the row that it is compared with, column


class Crossed(Protocol):
    """What a family asks of a table."""

    @property
    def columns(self) -> Sequence[str]:
        """In order."""
        ...

    @property
    def pairs(self) -> Sequence[tuple[str, str]]:
        """Rows with the baselines that they are compared with."""
        ...

    def called(self, name: str) -> Sequence[str]:
        """The row of this name, or the rows of this method."""
        ...

    def at(self, row: str, column: str) -> Sequence[Measured]:
        """What was measured in a cell."""
        ...


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Columns(_Declared):
    """Columns of one evaluation, with its headline metric, on all its data.

    `protocol` is without the version, `settings` are those printed behind it; no layers: all.
    """

    protocol: str
    settings: list[str] = []
    layers: list[str] = []

    def hold(self, record: EvaluationRecord) -> bool:
        """Whether a record's number stands in one of them."""
        protocol, *settings = record.details.protocol.split()
        return (
            protocol.partition("@")[0] == self.protocol
            and _without_precision(settings) == self.settings
            and (not self.layers or record.identity.layer in self.layers)
        )


class Contrast(_Declared):
    """Rows a against rows b, by their names or methods; no columns: the headlines."""

    a: str
    b: str
    columns: list[Columns] = []


class Label(_Declared):
    """What rows are called that have these settings: of the pretext, or said in another's name.

    `data` is the set that they were pretrained on; None: whichever.
    """

    label: str = Field(pattern=LABEL)
    method: str
    settings: dict[str, Any] = {}
    data: str | None = None

    def is_of(self, record: EvaluationRecord) -> bool:
        """Whether a record's encoder is so called."""
        name, *words = record.method.split()
        if name != self.method or self.data not in (None, record.details.pretraining_data):
            return False
        if not record.pretraining:
            return all(f"{key}={value}" in words for key, value in self.settings.items())
        own = record.pretraining
        # One that stands in the record alone has not its default, which the suite left it at.
        more = own.keys() - self.settings.keys() - HIDDEN - {"precision"}
        return not more and all(own.get(key) == value for key, value in self.settings.items())


class Family(_Declared):
    """What was declared: no headlines, the first columns; no contrasts, those with baselines.

    `order` are methods and encoders from elsewhere as a suite names them, each once.
    """

    headlines: list[Columns] = []
    contrasts: list[Contrast] = []
    labels: list[Label] = Field(default=[], exclude_if=lambda labels: not labels)
    order: list[str] = Field(default=[], exclude_if=lambda order: not order)

    def label_of(self, record: EvaluationRecord) -> str | None:
        """What a record's row is called; None: by its method."""
        return next((each.label for each in self.labels if each.is_of(record)), None)

    def place_of(self, record: EvaluationRecord) -> int:
        """A row's place by its method; behind all others where the order does not name it."""
        name = record.method.split()[0]
        return self.order.index(name) if name in self.order else len(self.order)

    @property
    def tests(self) -> bool:
        """Whether it says which differences are tested."""
        return bool(self.headlines or self.contrasts)

    def comparisons(self, table: Crossed) -> Iterator[Comparison]:
        """Each that the table has rows for."""
        if not self.contrasts:
            for row, baseline in table.pairs:
                yield from ((row, baseline, c) for c in self._columns(table, row, baseline, []))
        for contrast in self.contrasts:
            for a in table.called(contrast.a):
                for b in (row for row in table.called(contrast.b) if row != a):
                    yield from ((a, b, c) for c in self._columns(table, a, b, contrast.columns))

    def _columns(self, table: Crossed, a: str, b: str, own: list[Columns]) -> Iterator[str]:
        """Those at which two rows are compared."""
        seen = set[tuple[str, str]]()
        for column in table.columns:
            if not (table.at(a, column) and table.at(b, column)):
                continue
            one = table.at(a, column)[0]
            if one.metric != one.record.details.metric:
                continue
            evaluation = one.record.details.protocol, one.images
            asked = own or self.headlines
            if any(each.hold(one.record) for each in asked) if asked else evaluation not in seen:
                yield column
            seen.add(evaluation)


def _without_precision(settings: list[str]) -> list[str]:
    """What a device computes in is printed among the settings, but no suite has to say it."""
    return [setting for setting in settings if not setting.startswith("precision=")]


# ---- a suite's
def family_of(suite: Suite) -> Family:
    """What a suite declares. Raises UsageError for an evaluation that is not installed."""
    headlines = [
        _columns_of(suite, entry, entry.headline if isinstance(entry.headline, str) else None)
        for entry in suite.evaluate
        if entry.headline
    ]
    contrasts = [
        Contrast(
            a=each.a,
            b=each.b,
            columns=[
                _columns_of(suite, entry, each.layer)
                for entry in suite.evaluate
                if entry.evaluation == each.evaluation
            ],
        )
        for each in suite.contrast
    ]
    methods = [entry.method for entry in suite.pretrain]
    order = [*dict.fromkeys([*methods, *(entry.encoder for entry in suite.external)])]
    labels = list(_labels_of(suite))
    return Family(headlines=headlines, contrasts=contrasts, labels=labels, order=order)


def _labels_of(suite: Suite) -> Iterator[Label]:
    for entry in suite.pretrain:
        if entry.label:
            config = pretrain_config(suite, entry, suite.seeds[0]).model_dump(mode="json")
            # What a device decides (`auto`) is in the records, and no suite says it.
            settings = {n: v for n, v in config.items() if n not in HIDDEN and v != "auto"}
            sets = suite.images_of(entry)
            data = " + ".join(map(_set_name, [sets] if isinstance(sets, str) else sets))
            yield Label(label=entry.label, method=entry.method, settings=settings, data=data)
    for entry in suite.external:
        if entry.label:
            yield Label(label=entry.label, method=entry.encoder, settings=_weights_of(entry))


def _set_name(specification: str) -> str:
    """A set's printed name; of a folder that is not on this machine, by the path's end."""
    try:
        return catalogue.dataset(specification).name
    except BenchError:
        kind, _, argument = specification.partition(":")
        return f"{kind}:{Path(argument).name}"


def _weights_of(entry: ExternalEntry) -> dict[str, str]:
    """As a row's name says them; which file a package holds is known where it is installed."""
    weights = (entry.weights or "").removeprefix("order:")
    if not weights or weights.startswith("package:"):
        return {}
    return {"weights": Path(weights).stem}


def _columns_of(suite: Suite, entry: EvaluateEntry, layer: str | None) -> Columns:
    """The columns of an entry at this layer, or at all that rows ask for."""
    harness = catalogue.evaluation(entry.evaluation)
    settings = " ".join(evaluation_config(entry, suite.seeds[0]).deviations()).split()
    layers = {layer} if layer else suite.layers(entry)
    return Columns(
        protocol=harness.protocol.partition("@")[0],
        settings=_without_precision(settings),
        layers=[] if "all" in layers else sorted(layers),
    )


# ---- its file
def family_beside(workspace: Path | None) -> Family:
    """What the family.json of a folder says, or nothing declared. DataError for a damaged one."""
    path = workspace / FILE if workspace else None
    if path is None or not path.exists():
        return Family()
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path} has more than {LARGEST >> 10} kB: it is none")
        return Family.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(f"{path} is damaged ({error.error_count()} errors): remove it") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
