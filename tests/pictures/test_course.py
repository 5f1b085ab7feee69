"""`bench plot course`: every number of the records stands where its step and its value say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from helpers.bench import Bench
from helpers.predictions import answers, changed, stored
from helpers.refusals import fails
from ssl_bench.errors import UsageError
from ssl_bench.pictures import course
from ssl_bench.pictures.course import draw_courses
from ssl_bench.pictures.page import page_figures
from ssl_bench.records.record import EncoderIdentity, EvaluationRecord, Kept
from ssl_bench.tables.course import courses_of
from ssl_bench.tables.table import Table

NETWORK = {"arch": "alexnet", "image_size": 64, "width": 1.0, "init": "fan-in"}
RIGHT = {10: 40, 100: 55, 1000: 70, 20_000: 75}  # of 100 images, by step
LAYERS = {"conv3": 0, "conv5": 7}  # and so many more


def number(
    workspace: Path, method: str, right: int, layer: str, step: int | None, seed: int, **own: Any
) -> EvaluationRecord:
    """A record of 100 images, `right` of them hit, in the workspace."""
    made = stored(workspace, method, answers(right, 100 - right), seed=seed)
    steps = {"steps": 20_000} if step else {}
    kept = {"kept": Kept(run="p" * 64, step=step)} if step and step < 20_000 else {}
    weights = f"{method}{step}{seed}"
    identity = {"layer": layer, "encoder": EncoderIdentity(run=weights, weights=weights, spec={})}
    pretraining = {**NETWORK, "seed": seed, **steps, **own}
    return changed(
        made,
        identity=made.identity.model_copy(update=identity),
        details={"pretraining": pretraining, **kept},
    )


def records(workspace: Path, seeds: int = 1) -> list[EvaluationRecord]:
    """Two methods with a course, the floor, and the floor of another network."""
    found = []
    for seed in range(seeds):
        for layer, more in LAYERS.items():
            for step, right in RIGHT.items():
                right += more + 2 * seed
                found.append(number(workspace, "context-encoder", right, layer, step, seed))
                found.append(number(workspace, "autoencoder", right - 9, layer, step, seed))
            found.append(number(workspace, "random", 30 + more, layer, None, seed))
            found.append(number(workspace, "random", 5, layer, None, seed, width=0.5))
    return found


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    drawn: list[Figure] = []
    monkeypatch.setattr(course, "save_for_print", lambda figure, path: drawn.append(figure) or [])
    return drawn


def lines(panel: Any) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in panel.get_lines()]


def test_lines_are_the_means_at_their_steps(figures: list[Figure], tmp_path: Path) -> None:
    table = Table.of(records(tmp_path, seeds=2))
    courses = courses_of(table)
    assert [c.name for c in courses] == ["autoencoder", "context-encoder"]
    assert [c.across for c in courses] == [["random width=1.0"]] * 2  # not the narrow one
    draw_courses(table, courses, tmp_path / "x")
    (figure,) = figures
    panels = figure.get_axes()
    for panel, less in zip(panels, (9, 0), strict=True):
        assert panel.get_xscale() == "log"
        expected = []
        for more in LAYERS.values():
            # Two seeds, 2 images apart: the mean is 1 above the first.
            expected.append((list(RIGHT), [right + more + 1 - less for right in RIGHT.values()]))
            expected.append(([0, 1], [30 + more] * 2))
        for (steps, means), (x, y) in zip(lines(panel), expected, strict=True):
            assert steps == x
            assert means == pytest.approx(y)
    assert figure.get_suptitle().startswith("Mean of 2 seeds.")
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [*LAYERS, "random width=1.0"]


def test_bands_are_the_intervals_of_the_table(figures: list[Figure], tmp_path: Path) -> None:
    table = Table.of(records(tmp_path))
    draw_courses(table, courses_of(table, ["context-encoder"]), tmp_path / "x")
    (panel,) = figures[0].get_axes()
    band = panel.collections[0].get_paths()[0].get_extents()
    rows = [f"context-encoder, step {step:,} of 20,000" for step in (10, 100, 1000)]
    cells = [table.cell(row, "linear/logreg@1 conv3") for row in (*rows, "context-encoder")]
    lows, highs = zip(*((c.mean - c.half, c.mean + c.half) for c in cells if c), strict=True)
    assert (band.x0, band.x1) == (10, 20_000)
    assert (band.y0, band.y1) == pytest.approx((min(lows), max(highs)))


def test_layers_and_rows_are_told_apart_in_grey(figures: list[Figure], tmp_path: Path) -> None:
    table = Table.of(records(tmp_path))
    draw_courses(table, courses_of(table), tmp_path / "x")
    seen = {(line.get_marker(), str(line.get_linestyle()))
            for line in figures[0].get_axes()[0].get_lines()}  # fmt: skip
    assert len(seen) == 4  # two layers of two rows


def test_intervals_wider_than_the_scale_leave_the_means_to_be_seen(
    figures: list[Figure], tmp_path: Path
) -> None:
    made = [r for r in records(tmp_path, seeds=2) if r.method != "random"]
    table = Table.of(made, tmp_path)
    draw_courses(table, courses_of(table), tmp_path / "x")
    low, high = figures[0].get_axes()[0].get_ylim()
    span = (75 + 7 + 1) - (40 - 9 + 1)
    assert low <= 32
    assert high >= 83
    assert high - low <= 2.11 * span


def test_protocols_stand_below_each_other(figures: list[Figure], tmp_path: Path) -> None:
    one = number(tmp_path, "context-encoder", 50, "conv5", 10, 0)
    more = [changed(one, protocol="knn/dinov2@1")]
    table = Table.of([*records(tmp_path), *more])
    draw_courses(table, courses_of(table), tmp_path / "x")
    titles = [panel.get_ylabel() for panel in figures[0].get_axes()]
    assert titles == ["linear/logreg@1\ntop1, %", "", "knn/dinov2@1\ntop1, %", ""]


def test_without_a_course_nothing_is_drawn(bench: Bench, tmp_path: Path) -> None:
    found = [r for r in records(tmp_path) if not r.details.kept]
    with pytest.raises(UsageError, match="--keep-at"):
        courses_of(Table.of(found))
    table = Table.of(records(tmp_path))
    with pytest.raises(UsageError, match="did you mean context-encoder"):
        courses_of(table, ["context-encode"])
    fails(bench("plot", "course", "--out", tmp_path / "o", "--workspace", tmp_path / "none"), 2)


def test_pictures_are_written(tmp_path: Path) -> None:
    table = Table.of(records(tmp_path))
    paths = draw_courses(table, courses_of(table), tmp_path / "course")
    assert [path.name for path in paths] == ["course.png", "course.svg", "course.pdf"]
    with Image.open(paths[0]) as picture:
        assert np.asarray(picture.convert("L")).std() > 5


def test_a_page_draws_three_courses_side_by_side(tmp_path: Path) -> None:
    found = [
        number(tmp_path, f"method-{i}", 50, "conv3", step, 0) for i in range(4) for step in RIGHT
    ]
    titles = [figure.title for figure in page_figures(Table.of(found), tmp_path)]
    by_step = [title for title in titles if title.startswith("By step of training: ")]
    names = [title.removeprefix("By step of training: ").split("; ") for title in by_step]
    assert names == [["method-0", "method-1", "method-2"], ["method-3"]]


def test_long_names_of_courses_lie_on_no_other(tmp_path: Path, figures: list[Figure]) -> None:
    long = "context-encoder dropout=0.0 mask=random-region and more"
    found = [
        number(tmp_path, f"{long} {i}", 50, "conv3", step, 0) for i in range(2) for step in RIGHT
    ]
    table = Table.of(found)
    draw_courses(table, courses_of(table), tmp_path / "x")
    (figure,) = figures
    figure.draw_without_rendering()
    one, two = (axis.title.get_window_extent() for axis in figure.axes[:2])
    assert one.x1 < two.x0
