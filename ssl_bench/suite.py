"""Suites: a TOML file that says which runs make a table; what is missing is done.

name = "quickstart"
data = "scenes"                     # evaluated on, and pretrained on unless a run says
seeds = [0, 1, 2]                   # every run is made once per seed

[encoder]                           # settings that every pretext shares
image_size = 96

[[pretrain]]
method = "context-encoder"
steps = 400                         # and any other setting of the method

[[evaluate]]
evaluation = "linear-probe"
layers = ["conv3", "pool5"]
"""

import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ssl_bench import catalogue
from ssl_bench.errors import DataError, UsageError, unknown
from ssl_bench.progress import say
from ssl_bench.records import Record
from ssl_bench.runtime import Runtime
from ssl_bench.tables import Table

if TYPE_CHECKING:
    from ssl_bench.reference import Reference


class PretrainEntry(BaseModel):
    """One pretext; settings that are not named here are the method's own."""

    model_config = ConfigDict(frozen=True, extra="allow")
    method: str
    data: str | None = None


class EvaluateEntry(BaseModel):
    """One evaluation of every pretext's encoder, at these layers."""

    model_config = ConfigDict(frozen=True, extra="allow")
    evaluation: str
    layers: tuple[str, ...] = ()
    data: str | None = None


class Suite(BaseModel):
    """What a suite file holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    description: str = ""
    data: str = "scenes"
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    encoder: dict[str, Any] = Field(default_factory=dict)
    pretrain: tuple[PretrainEntry, ...] = Field(min_length=1)
    evaluate: tuple[EvaluateEntry, ...] = Field(min_length=1)


def shipped() -> list[str]:
    """Names of the suites that come with the package."""
    folder = resources.files("ssl_bench") / "suites"
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def read_suite(reference: str) -> Suite:
    """A shipped suite by name, or a TOML file; all names and settings in it are checked."""
    if reference.endswith(".toml"):
        try:
            text = Path(reference).read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot read the suite {reference}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"the suite {reference} is not UTF-8: save it as such") from error
    elif reference in shipped():
        text = (resources.files("ssl_bench") / "suites" / f"{reference}.toml").read_text("utf-8")
    else:
        raise unknown("suite", reference, shipped())
    try:
        suite = Suite.model_validate(tomllib.loads(text))
        for seed in suite.seeds:
            for entry in suite.pretrain:
                pretrain_config(suite, entry, seed)
            for evaluation in suite.evaluate:
                evaluation_config(evaluation, seed)
        _check_names(suite)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"suite {reference}: {error}") from error
    except ValidationError as error:
        raise UsageError(f"suite {reference}: {_mistake(error)}") from error
    return suite


def _check_names(suite: Suite) -> None:
    """UsageError for an unknown layer or dataset: found at once, not after the first training."""
    from ssl_bench.encoders import build_encoder
    from ssl_bench.pretrain import PLAIN, spec_of

    for data in {suite.data, *(e.data or suite.data for e in (*suite.pretrain, *suite.evaluate))}:
        catalogue.dataset(data)
    for entry in suite.pretrain:
        encoder = build_encoder(spec_of(pretrain_config(suite, entry, suite.seeds[0]), PLAIN))
        for evaluation in suite.evaluate:
            encoder.check_layers(layer for layer in evaluation.layers if layer != "all")


def _mistake(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] != "extra_forbidden":
        return f"{where}: {first['msg']}"
    known = next(m for m in _models() if m.__name__ == error.title).model_fields
    return str(unknown("key", where, known))


def _models() -> list[type[BaseModel]]:
    """Whatever a suite file's keys can belong to."""
    pretexts = [catalogue.pretext(name).Config for name in catalogue.names("pretext")]
    return [Suite, *pretexts, *(catalogue.evaluation(n).Config for n in catalogue.names("eval"))]


def pretrain_config(suite: Suite, entry: PretrainEntry, seed: int) -> Any:
    """The validated settings of one pretext and seed."""
    config = catalogue.pretext(entry.method).Config
    return config(**{**suite.encoder, **(entry.model_extra or {}), "seed": seed})


def evaluation_config(entry: EvaluateEntry, seed: int) -> Any:
    """The validated settings of one evaluation and seed."""
    return catalogue.evaluation(entry.evaluation).Config(**(entry.model_extra or {}), seed=seed)


def run_suite(
    suite: Suite, workspace: Path, runtime: Runtime, skip_bad_images: bool = False
) -> Table:
    """Make the runs that are missing, seed by seed, and return the table of the suite's own."""
    from ssl_bench.pretrain import pretrain
    from ssl_bench.reference import Reference

    found: list[Record] = []
    total = len(suite.seeds) * len(suite.pretrain)
    for i, seed in enumerate(suite.seeds):
        for j, entry in enumerate(suite.pretrain):
            say(f"[{i * len(suite.pretrain) + j + 1}/{total}] {entry.method}, seed {seed}")
            encoder = pretrain(
                entry.method,
                pretrain_config(suite, entry, seed),
                entry.data or suite.data,
                workspace,
                runtime,
                skip_bad_images=skip_bad_images,
            )
            reference = Reference(f"{entry.method}@{encoder.key}", workspace)
            found += _measure(suite, reference, seed, workspace, runtime, skip_bad_images)
    if not found:
        raise DataError(f"suite {suite.name} made no number")
    return Table.of(found, workspace)


def _measure(
    suite: Suite,
    encoder: "Reference",
    seed: int,
    workspace: Path,
    runtime: Runtime,
    skip_bad_images: bool,
) -> list[Record]:
    """All evaluations of one encoder: those on the same images share a pass over them."""
    from ssl_bench.evaluate import evaluate

    by_data: dict[str, list[tuple[Any, Sequence[str]]]] = {}
    for entry in suite.evaluate:
        harness = catalogue.evaluation(entry.evaluation)(evaluation_config(entry, seed))
        by_data.setdefault(entry.data or suite.data, []).append((harness, entry.layers))
    return [
        record
        for data, requests in by_data.items()
        for record in evaluate(
            requests, encoder, data, workspace, runtime, skip_bad_images=skip_bad_images
        )
    ]
