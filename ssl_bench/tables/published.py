"""Published numbers beside measured ones, with every deviation that is known (published.toml)."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from pydantic import BaseModel, ConfigDict

from ssl_bench import catalogue
from ssl_bench.records.command import settings_to_state
from ssl_bench.records.record import EvaluationRecord
from ssl_bench.tables.measured import Measured
from ssl_bench.tables.table import Place, Table


class Number(BaseModel):
    """One column of a published table, on `test_images` of `data`; `values` are by method."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    protocol: str
    metric: str
    data: str
    test_images: int
    layer: str = ""
    values: dict[str, float]

    def is_of(self, record: EvaluationRecord) -> bool:
        """Of a record's test images: the set by its name, kept for official ones, and how many."""
        name = record.data.removeprefix("folder:").lower()
        return (name, record.details.test_images) == (self.data.lower(), self.test_images)


class Source(BaseModel):
    """A published table: network, image size in px, images and steps of pretraining, if stated."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    arch: str
    size: int
    pretraining: str
    steps: int | None = None
    number: tuple[Number, ...]

    def has_network_of(self, record: EvaluationRecord) -> bool:
        """Whether a record's encoder, if it was pretrained here, is the paper's network."""
        return record.pretraining.get("arch", self.arch) == self.arch


@cache
def sources() -> tuple[Source, ...]:
    """All that are known."""
    text = (resources.files("ssl_bench.tables") / "published.toml").read_text(encoding="utf-8")
    return tuple(Source.model_validate(source) for source in tomllib.loads(text)["source"])


@dataclass(frozen=True)
class Published:
    """What is published beside a table's cells, as text with a footnote's number; the footnotes."""

    cells: Mapping[Place, str]
    notes: Sequence[str]

    def rows(self, table: Table, columns: Sequence[str]) -> list[tuple[str, list[str]]]:
        """Of these columns, by row; rows without a published number are left out."""
        lines = [(row, [self.cells.get((row, c), "–") for c in columns]) for row in table.rows]
        return [line for line in lines if any((line[0], c) in self.cells for c in columns)]


def published_beside(table: Table) -> Published:
    """The published numbers of a table's cells, each with ours less it."""
    cells, notes = dict[Place, str](), dict[str, int]()
    # In the order of reading, so that the footnotes count upwards.
    for place in ((row, column) for row in table.rows for column in table.columns):
        cell, found = table.cell(*place), table.at(*place)
        known = published_for(found[0]) if found else None
        if cell is None or known is None:
            continue
        value, source = known
        unlike = "; ".join(deviations(found[0], source)) or "nothing known"
        note = notes.setdefault(f"{source.name}. Here: {unlike}.", len(notes) + 1)
        gap = f"{cell.mean - value:+.{found[0].digits}f}".replace("-", "−")
        cells[place] = f"{value:g} [{note}] ({gap})"
    return Published(cells, [f"[{n}] {text}" for text, n in notes.items()])


def published_for(one: Measured) -> tuple[float, Source] | None:
    """The published value of the same method, protocol, layer, metric and test images.

    None for a method on another network than its paper's, or kept on the way. Beside other images
    than the published ones a difference would say nothing of the encoder: there chance stands
    alone.
    """
    if one.record.details.kept:
        return None
    name = one.record.identity.protocol.partition("@")[0]
    layer = one.record.column
    for source in sources():
        for number in source.number:
            wanted = (number.protocol, number.metric, number.layer)
            if wanted != (name, one.metric, layer) or not number.is_of(one.record):
                continue
            if one.record.method in number.values:
                value = number.values[one.record.method]
                return (value, source) if source.has_network_of(one.record) else None
    return None


def deviations(one: Measured, source: Source, settings: bool = True) -> Iterator[str]:
    """How the measured number was made otherwise than the published one: `here, not there`.

    Without `settings` those of the pretext's own training are left out.
    """
    record = one.record
    printed = record.details.protocol.split(" ")[1:]
    yield from printed
    pretraining: dict[str, Any] = record.details.pretraining or {}
    encoder = record.identity.encoder
    size = encoder.spec.get("image_size") if encoder else record.identity.image_size
    if size != source.size:
        yield f"{size} px, not {source.size}"
    if pretraining.get("width", 1.0) != 1.0:
        yield f"width {pretraining['width']}, not 1"
    method = str(record.details.encoder or record.method)
    if settings and (changed := list(_settings(method, pretraining))):
        yield f"pretrained with {', '.join(changed)}"
    if "steps" not in pretraining and not _is_fitted(method):  # it saw no image
        return
    if record.details.pretraining_data != source.pretraining:
        yield f"pretrained on {record.details.pretraining_data}, not {source.pretraining}"
    if (steps := pretraining.get("steps", source.steps)) != source.steps:
        there = f", not {source.steps:,}" if source.steps else ""  # few papers say it
        yield f"{steps:,} pretraining steps{there}"


# Settings that are stated in words of their own, or are no deviation.
NOT_LISTED = {"seed", "precision", "image_size", "width", "steps"}


def _settings(method: str, pretraining: Mapping[str, Any]) -> Iterator[str]:
    """The settings of a pretext that are not its defaults, which are the papers' or unstated."""
    pretext = catalogue.find("pretext", method)
    if pretext is None:
        return
    for name, value in settings_to_state(pretext.Config, pretraining).items():
        if name not in NOT_LISTED:
            yield f"{name}={value}"


def _is_fitted(method: str) -> bool:
    """Whether a pretext takes its weights from the images without training."""
    return bool(catalogue.said_of("pretext", method, "fit"))
