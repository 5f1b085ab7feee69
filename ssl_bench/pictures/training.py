"""`bench plot training`: what each training logged, by step, finished or not.

From `log.jsonl` of a workspace's runs; an export has none. A panel a quantity, those of online
probes first; a line a run; runs of one method and settings share a look. What is logged at many
steps is drawn faintly, with its running mean.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ssl_bench import catalogue
from ssl_bench.errors import DataError, UsageError
from ssl_bench.pictures.style import looks, styled
from ssl_bench.records.record import PretrainRecord
from ssl_bench.records.workspace import read_record
from ssl_bench.tables.names import varying

SPEED = {"step", "images_per_second", "data_wait"}  # what a log says of the machine
ACROSS = 3
PANEL = (2.6, 2.1)  # inches
MANY = 60  # steps of a line above which it is smoothed
WIDE = 30  # times the median value, above which an axis is logarithmic


@dataclass(frozen=True)
class Curves:
    """What a training logged: its name, and each quantity's values by step."""

    name: str
    values: Mapping[str, Mapping[int, float]]


def logs_of(workspace: Path) -> list[Curves]:
    """Those of all trainings. UsageError where there is none."""
    paths = sorted(workspace.glob("pretrain/*/log.jsonl"))
    logs = [
        Curves(name, values)
        for name, path in zip(_names(paths), paths, strict=True)
        if (values := _values(path))
    ]
    if not logs:
        raise UsageError(f"no training in {workspace} has a log: an export has none")
    return logs


def _names(paths: Sequence[Path]) -> list[str]:
    """The method, and what differs among its runs but the seed; the folder's of an unfinished."""
    records = [_record(path.with_name("record.json")) for path in paths]
    configs = defaultdict[str, list[Mapping[str, Any]]](list)
    for record in records:
        if record:
            configs[record.method].append({**record.identity.config, "on": record.data})
    names = []
    for record, path in zip(records, paths, strict=True):
        if record is None:
            names.append(f"{path.parent.name}, not finished")
            continue
        own = {**record.identity.config, "on": record.data}
        marks = [f"{name}={own[name]}" for name in sorted(varying(configs[record.method]))]
        names.append(" ".join([record.method, *marks]))
    return names


def _record(path: Path) -> PretrainRecord | None:
    try:
        found = read_record(path) if path.exists() else None
    except DataError:  # `bench runs` names it; its log can be drawn all the same
        return None
    return found if isinstance(found, PretrainRecord) else None


def _values(path: Path) -> dict[str, dict[int, float]]:
    """By quantity and step; a line that is cut short, as of a run that was killed, is left out."""
    values = defaultdict[str, dict[int, float]](dict)
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found = json.loads(line)
            step = int(found["step"])
        except (ValueError, TypeError, KeyError):
            continue
        for name, value in found.items():
            if name not in SPEED and isinstance(value, int | float):
                values[name][step] = float(value)
    return dict(values)


@styled
def draw_training(logs: Sequence[Curves]) -> Figure:
    """A panel for each quantity that some run logged."""
    quantities = list(dict.fromkeys(name for log in logs for name in log.values))
    probes = {*catalogue.names("eval")}  # an online probe logs under its evaluation's name
    quantities.sort(key=lambda name: name not in probes)
    across = min(ACROSS, len(quantities))
    down = -(-len(quantities) // across)
    look = looks(dict.fromkeys(log.name for log in logs))
    size = PANEL[0] * across, PANEL[1] * down + 0.2 * len(look) + 0.2
    figure = Figure(figsize=size, layout="constrained")
    axes = [*figure.subplots(down, across, squeeze=False, sharex=True).flat]
    for axis in axes:
        axis.set_axis_off()
    for axis, quantity in zip(axes, quantities, strict=False):
        for log in logs:
            if points := log.values.get(quantity):
                _line(axis, [*points], [*points.values()], look[log.name])
        axis.set_axis_on()
        axis.tick_params(labelbottom=True)
        axis.grid(axis="both")
        values = [value for log in logs for value in log.values.get(quantity, {}).values()]
        # The first steps of a loss may be so large that the rest is a line on the ground.
        if min(values) > 0 and max(values) > WIDE * np.median(values):
            axis.set_yscale("log")
        axis.set_ylabel(f"{quantity}\nonline probe" if quantity in probes else quantity)
        axis.set_xlabel("step of training")
    handles = [Line2D([], [], label=name, **each) for name, each in look.items()]
    figure.legend(handles=handles, loc="outside lower center")
    return figure


def _line(axis: Any, steps: list[int], values: list[float], look: Mapping[str, Any]) -> None:
    """The values, or beside them the mean of a twentieth of them, with some ten markers.

    Markers tell lines apart in grey, and may not hide them.
    """
    every = max(1, len(steps) // 10)
    if len(steps) > MANY:
        axis.plot(steps, values, color=look["color"], linewidth=0.5, alpha=0.3)
        steps, values = _running_mean(steps, values, len(steps) // 20)
    axis.plot(steps, values, markevery=every, **look)


def _running_mean(
    steps: Sequence[int], values: Sequence[float], window: int
) -> tuple[list[int], list[float]]:
    """Means of so many values, each at the middle step of its window."""
    means = np.convolve(values, np.full(window, 1 / window), "valid")
    first = (window - 1) // 2
    return list(steps[first : first + len(means)]), means.tolist()
