"""Small sets in layouts of others, and what is asked of each."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.photos import draw_photo
from ssl_bench import catalogue
from ssl_bench.data.dataset import Split, Task
from ssl_bench.data.faults import Faults
from ssl_bench.errors import BenchError


def photographs(root: Path, *names: str, width: int = 24, height: int = 16) -> Path:
    """Photographs of these names, each another one."""
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        draw_photo(seed, width, height).save(root / name)
    return root


def split_of(specification: str, name: str = "train", task: Task = "classification") -> Split:
    return catalogue.dataset(specification).split(name, task)


def labels_of(split: Split) -> list[object]:
    """Of each image: its class's name, or the names of all that are there."""
    assert split.labels is not None
    if split.labels.ndim == 1:
        return [split.classes[label] for label in split.labels]
    return [{split.classes[i] for i in np.flatnonzero(row == 1)} for row in split.labels]


def refuses(specification: str, *parts: str, task: Task = "classification") -> None:
    """Opening a set, and reading all of it, ends with one report that has all parts."""
    assert_refused(lambda: read_all(specification, task), *parts)


def read_all(specification: str, task: Task) -> None:
    from ssl_bench.data.survey import check

    list(check(catalogue.dataset(specification), task, 0))


def assert_refused(call: Callable[[], object], *parts: str) -> None:
    with pytest.raises(BenchError) as raised:
        call()
    error = raised.value
    message = "\n".join(error.lines) if isinstance(error, Faults) else str(error)
    assert [part for part in parts if part not in message] == [], message
