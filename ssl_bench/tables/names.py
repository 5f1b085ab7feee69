"""What the rows and columns of a table are called, in which order they stand, what is a baseline.

A name says what tells its row or column apart from the others of the table, and no more.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ssl_bench import catalogue
from ssl_bench.files import key_of
from ssl_bench.records.record import EvaluationRecord
from ssl_bench.training.config import EncoderConfig, TrainConfig

HIDDEN = {"seed"}  # settings that never tell rows or columns apart


def baseline_place(method: str) -> int | None:
    """The place of a pretext among the baselines, 0 first; None for what is none.

    A pretext that is not installed, or fails to import, is no baseline here.
    """
    return catalogue.said_of("pretext", method, "baseline")


def rank(record: EvaluationRecord) -> float:
    """Baselines first, as in the paper's tables."""
    place = baseline_place(record.method)
    return float("inf") if place is None else place


def baseline_of(row: EvaluationRecord, candidates: Mapping[str, EvaluationRecord]) -> str | None:
    """The name of the baseline that a row is to be compared with, of these with their records.

    It has the same network, size and kind of starting weights; if several have, it saw the same
    images; one that trains was kept at the same step, or both were at their end. None if that does
    not leave one.
    """
    settings = _pretraining(row)
    shared = EncoderConfig.model_fields.keys() - HIDDEN
    alike = {
        name: record
        for name, record in candidates.items()
        if all(settings.get(k) == _pretraining(record).get(k) for k in shared) or not settings
    }
    alike = {
        name: record
        for name, record in alike.items()
        if "steps" not in _pretraining(record) or step_mark(record) == step_mark(row)
    }
    if len(alike) > 1:
        images = _source(row)
        alike = {name: record for name, record in alike.items() if _source(record) == images}
    return next(iter(alike)) if len(alike) == 1 else None


def _source(record: EvaluationRecord) -> tuple[Any, Any]:
    return record.details.pretraining_data, record.details.pretraining_digest


def _pretraining(record: EvaluationRecord) -> Mapping[str, Any]:
    return record.details.pretraining or {}


def varying(configs: Iterable[Mapping[str, Any]]) -> set[str]:
    """Settings with more than one value among these configurations.

    One that only some of them have is left out by the others, which have its default.
    """
    configs = list(configs)
    names = {name for config in configs for name in config} - HIDDEN
    return {n for n in names if len({repr(config.get(n)) for config in configs}) > 1}


def row_names(records: Sequence[EvaluationRecord], labels: Sequence[str | None] = ()) -> list[str]:
    """The label or the method, with what differs among its runs: the network; of one, all settings.

    A method's own settings come before those of the training, the images last. A setting that a
    record leaves out, as it has its default, is not named; of a random row nor is the network that
    all rows share that are not random. `labels` are those declared, one a record, None where there
    is none.
    """
    labels = labels or [None] * len(records)
    described = [
        {**_pretraining(record), "on": source}
        for record, source in zip(records, pretraining_sets(records), strict=True)
    ]
    runs: dict[str, dict[Any, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for record, label, settings in zip(records, labels, described, strict=True):
        # A row without a label is told apart from those with one, too.
        for name in {record.method, label or record.method}:
            runs[name][settings.get("arch")].append(settings)
    # Of a library's weights there is no pretraining that would say the network.
    trained = {
        settings.get("arch") or _network(record)
        for record, settings in zip(records, described, strict=True)
        if record.identity.encoder and baseline_place(record.method) != 0
    }
    names = []
    for record, label, settings in zip(records, labels, described, strict=True):
        first = label or record.method
        networks = runs[first]
        distinguishing = varying(networks[settings.get("arch")])
        usual = baseline_place(record.method) == 0 and trained == {settings.get("arch")}
        distinguishing |= {"arch"} if len(networks) > 1 and not usual else set()
        distinguishing |= {"start", "stem", "recipe"}  # what the field would ask for is always said
        distinguishing |= _against_recipe(record)
        shown = sorted(distinguishing & settings.keys(), key=_rank_of_setting)
        marks = (_mark(name, settings[name]) for name in shown)
        names.append(" ".join([first, *marks]) + step_mark(record))
    return names


def _against_recipe(record: EvaluationRecord) -> set[str]:
    """The settings in which a run is unlike the recipe that it names, if that is known here."""
    settings = _pretraining(record)
    if "recipe" not in settings:  # nothing is imported for it
        return set()
    pretext = catalogue.find("pretext", record.details.encoder or record.method)
    recipe = pretext.Config.named(settings["recipe"]) if pretext else None
    said = json.loads(json.dumps(recipe.settings)) if recipe else {}  # as records say it
    return {name for name, value in said.items() if settings.get(name) != value}


def shared_settings(records: Iterable[EvaluationRecord]) -> dict[str, Any]:
    """What the networks of all pretexts have in common; empty for encoders from elsewhere alone."""
    found = [record.pretraining for record in records if record.pretraining]
    names = [name for name in EncoderConfig.model_fields if name not in HIDDEN]
    return {
        name: found[0][name]
        for name in names
        if found and name in found[0] and all(found[0][name] == each.get(name) for each in found)
    }


def step_mark(record: EvaluationRecord) -> str:
    """`, step 2,000 of 100,000` of an encoder that was kept on the way."""
    kept = record.details.kept
    return f", step {kept.step:,} of {_pretraining(record).get('steps'):,}" if kept else ""


def _mark(name: str, value: Any) -> str:
    """A setting as rows say it; batch normalisation by the field's letters."""
    if name == "recipe":
        return value
    words = {("norm", "batch"): "BN", ("stem", "small"): "small stem", ("stem", "sobel"): "Sobel"}
    if (name, str(value)) in words:
        return words[name, str(value)]
    return f"on {value}" if name == "on" else f"{name}={value}"


def _rank_of_setting(name: str) -> tuple[bool, bool, str]:
    place = name == "on", name in TrainConfig.model_fields
    return place[0], place[1], "" if name == "recipe" else name


def pretraining_sets(records: Sequence[EvaluationRecord]) -> list[str]:
    """What each encoder was pretrained on, marked by content where a name stands for several."""
    return _marked_by_digest(_pretraining_data(records))


def _pretraining_data(records: Sequence[EvaluationRecord]) -> list[tuple[str, str | None]]:
    """Name and digest of the images that each encoder was pretrained on.

    The first records did not hold the digest: what another one says of the same run is taken.
    """
    runs = [str(r.identity.encoder) for r in records]
    known: dict[str, str] = {}
    for run, record in zip(runs, records, strict=True):
        if record.details.pretraining_digest:
            known[run] = record.details.pretraining_digest
    named = zip(runs, records, strict=True)
    return [
        (str(r.details.pretraining_data), r.details.pretraining_digest or known.get(run))
        for run, r in named
    ]


def column_names(shown: Sequence[tuple[EvaluationRecord, str]]) -> list[str]:
    """Protocol with its deviations, layer, the metric if there are several, the data likewise."""
    data = data_names([record for record, _ in shown])
    several = len(set(data)) > 1
    return [
        f"{r.details.protocol} {r.column}".rstrip()
        + (f" {metric}" if len(r.shown) > 1 else "")
        + (f" on {name}" if several else "")
        for (r, metric), name in zip(shown, data, strict=True)
    ]


def data_names(records: Sequence[EvaluationRecord]) -> list[str]:
    """The data set of each record, told apart by content where a name stands for several.

    Protocols are looked at one by one: of one set, some see squares, some boxes, some masks.
    """
    names = [""] * len(records)
    for protocol in {record.identity.protocol for record in records}:
        of = [i for i, r in enumerate(records) if r.identity.protocol == protocol]
        contents = [(records[i].data, "".join(records[i].identity.data.values())) for i in of]
        for i, name in zip(of, _marked_by_digest(contents), strict=True):
            names[i] = name
    return names


def _marked_by_digest(named: Sequence[tuple[str, str | None]]) -> list[str]:
    """Each name, with a mark of its digest where other digests go by the same name."""
    digests: dict[str, set[str | None]] = defaultdict(set)
    for name, digest in named:
        digests[name].add(digest)
    return [
        f"{name} [{key_of({'data': digest})[:4]}]" if len(digests[name]) > 1 else name
        for name, digest in named
    ]


def column_order(records: Sequence[EvaluationRecord], names: Sequence[str]) -> list[str]:
    """By protocol in order of appearance, networks apart, then by layer from the image upwards."""
    protocols: dict[str, dict[str, list[EvaluationRecord]]] = defaultdict(lambda: defaultdict(list))
    for record, name in zip(records, names, strict=True):
        protocols[record.identity.protocol][name].append(record)
    return [
        column
        for columns in protocols.values()
        for part in connected({n: {_network(r) for r in found} for n, found in columns.items()})
        for column in _upwards({name: columns[name] for name in part})
    ]


def connected(held: Mapping[str, set[Any]]) -> list[list[str]]:
    """The names in parts that hold nothing in common, each where its first name stands."""
    parts: list[tuple[list[str], set[Any]]] = []
    for name, own in held.items():
        # A name may join parts that had nothing in common until it came.
        joined = [part for part in parts if part[1] & own]
        parts = [part for part in parts if part not in joined]
        parts.append(
            ([*(n for names, _ in joined for n in names), name], own.union(*(h for _, h in joined)))
        )
    order = list(held)
    return sorted((names for names, _ in parts), key=lambda names: order.index(names[0]))


def _network(record: EvaluationRecord) -> Any:
    return record.identity.encoder.spec.get("arch") if record.identity.encoder else None


def _upwards(columns: Mapping[str, Sequence[EvaluationRecord]]) -> list[str]:
    """Columns by the depth of their layers; where a record does not say it, by the layers' names.

    Names with a number come first, in the order of people (block9 before block10), the others as
    they came.
    """
    depths = {
        name: next((r.details.depth for r in found if r.details.depth is not None), None)
        for name, found in columns.items()
    }
    if None not in depths.values():
        return sorted(columns, key=lambda name: depths[name] or 0)
    # Depths and names cannot be compared: one column without a depth is enough for names.
    return sorted(columns, key=lambda name: _natural(columns[name][0].identity.layer))


def _natural(layer: str) -> tuple[bool, list[tuple[str, int]]]:
    pieces = re.findall(r"(\D*)(\d+)", layer)
    return not pieces, [(text, int(number)) for text, number in pieces]
