"""A suite is read: by its name or from its file, with all names and settings in it checked.

What a suite holds is said in suite.py.
"""

import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ValidationError

from ssl_bench import catalogue
from ssl_bench.errors import UsageError, complaint, unknown
from ssl_bench.evaluation.suite import (
    ContrastEntry,
    EvaluateEntry,
    ExternalEntry,
    PretrainEntry,
    Suite,
    evaluation_config,
    pretrain_config,
    steps_on_the_way,
)

LARGEST = 64 << 10  # bytes of a suite


def shipped() -> list[str]:
    """Names of the suites that come with the package."""
    folder = resources.files("ssl_bench.evaluation") / "suites"
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def read_suite(reference: str, seeds: int | None = None) -> Suite:
    """A shipped suite by name, or a TOML file; all names and settings in it are checked.

    With `seeds` it is done with 0 … seeds − 1 in place of its own.
    """
    if reference.endswith(".toml"):
        try:
            text = _text(Path(reference))
        except OSError as error:
            raise UsageError(f"cannot read the suite {reference}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"the suite {reference} is not UTF-8: save it as such") from error
    elif reference in shipped():
        text = (resources.files("ssl_bench.evaluation") / "suites" / f"{reference}.toml").read_text(
            "utf-8"
        )
    else:
        raise unknown("suite", reference, shipped())
    try:
        suite = own = Suite.model_validate(tomllib.loads(text))
        if seeds:
            suite = suite.model_copy(update={"seeds": tuple(range(seeds))})
        for seed in suite.seeds:
            for entry in suite.pretrain:
                steps_on_the_way(suite, entry, seed)
            for evaluation in suite.evaluate:
                evaluation_config(evaluation, seed)
        # An entry's seeds are some of the suite's own; of none that is asked for, it has no part.
        _check_names(suite, own.seeds)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"suite {reference}: {error}") from error
    except ValidationError as error:
        raise UsageError(f"suite {reference}: {_mistake(error)}") from error
    except ValueError as error:  # a number of thousands of digits
        raise UsageError(f"suite {reference}: {error}") from error
    return suite


def _text(path: Path) -> str:
    """A suite's text. UsageError for a file that is none: names nested for ever take for ever."""
    if path.stat().st_size > LARGEST:
        raise UsageError(f"the suite {path} has more than {LARGEST >> 10} kB: it is none")
    return path.read_text(encoding="utf-8")


def _check_names(suite: Suite, seeds: Sequence[int]) -> None:
    """UsageError for an unknown layer, dataset or seed: at once, not after the first training."""
    for data in {suite.data, *(e.data or suite.data for e in suite.evaluate)}:
        catalogue.dataset(data)
    for sets in {suite.images_of(entry) for entry in suite.methods}:
        catalogue.datasets(sets)
    for entry in (*suite.pretrain, *suite.evaluate):
        for seed in entry.seeds:
            if seed not in seeds:
                raise unknown("seed", str(seed), map(str, seeds))
    evaluations = {entry.evaluation for entry in suite.evaluate}
    for row in (*suite.methods, *suite.external):
        for name in row.named - evaluations:
            raise unknown("evaluation of the suite", name, evaluations)
        _check_layers(suite, row)
    for entry in suite.evaluate:
        if isinstance(entry.headline, str):
            _check_measured(suite, [entry], entry.headline)
    for contrast in suite.contrast:
        asked = [e for e in suite.evaluate if e.evaluation == contrast.evaluation]
        if contrast.evaluation and not asked:
            raise unknown("evaluation of the suite", contrast.evaluation, evaluations)
        if contrast.layer and not asked:
            raise UsageError(f"contrast: layer {contrast.layer} needs an evaluation")
        if contrast.layer:
            _check_measured(suite, asked, contrast.layer)


def _check_measured(suite: Suite, entries: Sequence[EvaluateEntry], layer: str) -> None:
    """UsageError for a layer that is to be tested and that no row is measured at."""
    measured = {name for entry in entries for name in suite.layers(entry)}
    if measured and not measured & {layer, "all"}:
        raise unknown(f"layer of {entries[0].evaluation}", layer, measured)


def _check_layers(suite: Suite, row: PretrainEntry | ExternalEntry) -> None:
    """UsageError for a layer that the row's network does not have."""
    from ssl_bench.encoders.build import LIBRARIES, build_encoder, own_spec
    from ssl_bench.training.build import PLAIN

    if isinstance(row, PretrainEntry):
        spec = pretrain_config(suite, row, suite.seeds[0]).spec(PLAIN)
    elif row.encoder.partition(":")[0] in LIBRARIES:
        spec = own_spec(row.encoder)
    else:
        return
    asked = {layer for s in suite.seeds for _, layers in suite.requests(row, s) for layer in layers}
    build_encoder(spec).check_layers(sorted(asked - {"all"}))


def _mistake(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] != "extra_forbidden":
        several = "; several sets to pretrain on are named by pretrain_data" * (where == "data")
        return complaint(first, where) + several
    closed = {"external": ExternalEntry, "contrast": ContrastEntry}.get(str(first["loc"][0]))
    if closed:
        return str(unknown("key", str(first["loc"][-1]), closed.model_fields))
    known = next(m for m in _models() if m.__name__ == error.title).model_fields
    return str(unknown("key", where, known))


def _models() -> list[type[BaseModel]]:
    """Whatever a suite file's keys can belong to."""
    kinds = [*catalogue.find_all("pretext").values(), *catalogue.find_all("eval").values()]
    return [Suite, *(each.Config for each in kinds if hasattr(each, "Config"))]
