"""The plots of a table: every mark and line stands where the table's numbers are."""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from helpers.bench import Bench
from helpers.places import RESULTS
from helpers.predictions import answers, changed, stored
from helpers.refusals import fails
from ssl_bench.errors import UsageError
from ssl_bench.pictures.layers import apart, draw_layers
from ssl_bench.pictures.page import inline, page_figures
from ssl_bench.pictures.rows import draw_differences, draw_rows
from ssl_bench.pictures.style import COLOURS, GREY, INK, looks
from ssl_bench.pictures.training import draw_training, logs_of
from ssl_bench.records.record import Kept
from ssl_bench.tables.family import Columns, Family
from ssl_bench.tables.table import Table

HITS = {"random": 30, "autoencoder": 42, "context-encoder": 60}  # of 100
LAYERS = {"conv3": 0, "conv5": 8, "pool5": 4}  # and so many more
HEADLINE = Family(headlines=[Columns(protocol="linear/logreg", layers=["pool5"])])


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Three methods at three layers, one seed."""
    made = []
    for layer, more in LAYERS.items():
        for method, hits in HITS.items():
            record = stored(tmp_path / layer, method, answers(hits + more, 100 - hits - more))
            (tmp_path / "all").mkdir(exist_ok=True)
            run = next((tmp_path / layer / "evaluation").glob(f"*{record.key[:12]}"))
            made.append((record, layer, run))
    found = []
    for record, layer, run in made:
        key = f"{layer}-{record.method}".ljust(64, "0")
        place = tmp_path / "all/evaluation" / f"x-{key[:12]}"
        found.append(changed(record, layer=layer, key=key))
        place.parent.mkdir(parents=True, exist_ok=True)
        run.rename(place)
    return Table.of(found, tmp_path / "all", HEADLINE)


def panels(figure: Figure) -> list[Any]:
    """Those with something in them."""
    return [axis for axis in figure.get_axes() if axis.axison]


def bars(panel: Any) -> list[tuple[float, float, float, float]]:
    """Place, mean, low and high of each interval of a panel."""
    found = []
    for container in panel.containers:
        mark, _, (bar,) = container.lines
        (low, place), (high, _) = bar.get_segments()[0]
        (mean,) = mark.get_xdata()
        found.append((float(place), float(mean), float(low), float(high)))
    return found


def names(panel: Any) -> list[str]:
    return [label.get_text().replace("\n", " ") for label in panel.get_yticklabels()]


def upright(panel: Any) -> list[float]:
    """Where lines go from top to bottom."""
    lines = [np.ravel(line.get_xdata()).tolist() for line in panel.get_lines()]
    return [line[0] for line in lines if len(line) == 2 and line[0] == line[1]]


def test_rows_stand_at_their_means_with_their_intervals(table: Table) -> None:
    (panel,) = panels(draw_rows(table))
    column = "linear/logreg@1 pool5"
    cells = [table.cells[row, column] for row in HITS]
    assert names(panel) == [*HITS]
    expected = [(i, c.mean, c.mean - c.half, c.mean + c.half) for i, c in enumerate(cells)]
    np.testing.assert_allclose(bars(panel), expected)
    # Untrained and chance: all labels are one class, which is always right.
    assert sorted(upright(panel)) == pytest.approx([34.0, 100.0])
    assert panel.get_xlabel().startswith("top1, %")
    assert "95 % interval" in panel.get_xlabel()
    assert panel.get_title() == "linear/logreg@1\npool5"


def test_one_seed_is_hollow(table: Table) -> None:
    figure = draw_rows(table)
    marks = [c.lines[0].get_markerfacecolor() for c in panels(figure)[0].containers]
    assert {*marks} == {"white"}
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["one seed, interval over test images", "untrained", "chance"]
    few = draw_rows(Table.of(_quickstart(), RESULTS / "quickstart"))
    face = panels(few)[0].containers[0].lines[0].get_markerfacecolor()
    assert face == INK


def _quickstart() -> list[Any]:
    from ssl_bench.records.workspace import read_records

    return read_records(RESULTS / "quickstart", "evaluation")


def test_differences_are_those_that_the_table_tests(table: Table) -> None:
    (panel,) = panels(draw_differences(table))
    tested = [table.difference(*place) for place in table.declared]
    assert [c and c.clear for c in tested] == [True] * 3
    expected = [(i, c.mean, c.mean - c.half, c.mean + c.half) for i, c in enumerate(tested) if c]
    np.testing.assert_allclose(bars(panel), expected)
    assert names(panel) == [f"{a} − {b}" for a, b, _ in table.declared]
    assert upright(panel) == [0.0]
    filled = {c.lines[0].get_markerfacecolor() for c in panel.containers}
    assert filled == {COLOURS[0]}


def test_what_is_not_told_apart_is_hollow_and_grey(tmp_path: Path) -> None:
    made = [stored(tmp_path, m, answers(50 + i, 50 - i)) for i, m in enumerate(HITS)]
    (panel,) = panels(draw_differences(Table.of(made, tmp_path)))
    marks = [c.lines[0] for c in panel.containers]
    assert [(m.get_markerfacecolor(), m.get_color()) for m in marks] == [("white", GREY)] * 3
    with pytest.raises(UsageError, match="no difference is tested"):
        draw_differences(Table.of(made[:1], tmp_path))


def test_layers_go_upwards_with_bands(table: Table) -> None:
    (panel,) = panels(draw_layers(table))
    assert [label.get_text() for label in panel.get_xticklabels()] == [*LAYERS]
    *rows, chance = panel.get_lines()
    for line, hits in zip(rows, HITS.values(), strict=True):
        assert list(line.get_ydata()) == pytest.approx([hits + m for m in LAYERS.values()])
    assert list(chance.get_ydata()) == [100.0] * 3
    assert (rows[0].get_color(), rows[0].get_linestyle()) == (INK, "--")
    assert len({line.get_marker() for line in rows}) == 2  # and the broken line
    band = panel.collections[1].get_paths()[0].get_extents()
    cells = [table.cells["autoencoder", f"linear/logreg@1 {layer}"] for layer in LAYERS]
    ends = [c.mean - c.half for c in cells], [c.mean + c.half for c in cells]
    assert (band.y0, band.y1) == pytest.approx((min(ends[0]), max(ends[1])))


def overlaps(panel: Any) -> list[tuple[str, str]]:
    """Pairs of names beside a panel that lie on each other by more than half a point."""
    panel.figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent()) for text in panel.texts if text.get_text()]
    boxes.sort(key=lambda each: -each[1].y0)
    tolerated = 0.5 * panel.figure.dpi / 72
    return [(a, b) for (a, one), (b, two) in pairwise(boxes) if one.y0 < two.y1 - tolerated]


def test_each_line_is_named_at_its_end_and_no_name_lies_on_another(tmp_path: Path) -> None:
    """Seventeen rows, most of them equal; markers stand beside the names, for grey."""
    methods = ["random", *(f"method {'long ' * (i % 4)}{i}" for i in range(16))]
    made = [
        changed(stored(tmp_path / f"{layer}{i}", method, answers(50 + i // 9, 50)), layer=layer)
        for layer in ("conv3", "pool5")
        for i, method in enumerate(methods)
    ]
    (panel,) = panels(draw_layers(Table.of(made)))
    named = [text.get_text() for text in panel.texts if text.get_text()]
    assert sorted(named) == sorted(methods)
    assert overlaps(panel) == []
    shapes = {
        (line.get_marker(), str(line.get_linestyle()), line.get_markerfacecolor() == "white")
        for line in panel.get_lines()
    }
    assert len(shapes) == 17
    markers = panel.collections[len(methods) :]  # behind the bands
    assert len(markers) == len(methods)


def test_names_stand_as_near_as_can_be_to_their_lines() -> None:
    assert apart([9.0, 5.0, 1.0], [1.0] * 3, 0.0, 10.0) == [9.0, 5.0, 1.0]
    assert apart([5.0, 5.0], [2.0, 2.0], 0.0, 10.0) == [6.0, 4.0]  # both moved alike
    assert apart([9.5, 9.5, 0.1], [1.0] * 3, 0.0, 10.0) == [9.5, 8.5, 0.5]  # within the axis


def test_of_a_training_the_last_encoder_is_drawn_by_layer(tmp_path: Path) -> None:
    """Those on the way are the course's."""
    kept = [("context-encoder", 100), ("context-encoder", 200), ("autoencoder", 100)]
    made = []
    for i, (method, step) in enumerate([("random", 0), *kept]):
        details: dict[str, Any] = {"pretraining": {"seed": 0}}
        if step:
            on_the_way = Kept(run="0" * 64, step=step)
            details = {"pretraining": {"seed": 0, "steps": 300}, "kept": on_the_way}
        one = stored(tmp_path / str(i), method, answers(50, 50))
        made += [changed(one, layer=layer, details=details) for layer in ("conv3", "pool5")]
    table = Table.of(made)
    assert len(table.rows) == 4
    (panel,) = panels(draw_layers(table))
    named = {text.get_text() for text in panel.texts if text.get_text()}
    expected = {"context-encoder, step 200 of 300", "autoencoder, step 100 of 300"}
    assert named == {"random", *expected}


def test_long_names_of_differences_and_a_narrow_legend_are_whole(tmp_path: Path) -> None:
    """None lies on the next, no minus stands alone, nothing is cut at the figure's edge."""
    long = " ".join(["context-encoder with a name of three lines, as there are,"] * 2)
    hits = {"random": 50, "a": 80, "b": 52, long: 90, f"{long}, 2": 50}
    made = [stored(tmp_path, m, answers(right, 100 - right)) for m, right in hits.items()]
    for some in (made, made[:3]):
        figure = draw_differences(Table.of(some, tmp_path))
        (panel,) = panels(figure)
        figure.draw_without_rendering()
        labels = panel.get_yticklabels()
        assert len(labels) == len(some) - 1
        lines = [line.strip() for each in labels for line in each.get_text().split("\n")]
        assert "−" not in lines
        boxes = [each.get_window_extent() for each in labels]
        assert all(one.y0 >= two.y1 for one, two in pairwise(boxes))
        legend = figure.legends[0].get_window_extent()
        assert legend.x0 >= 0
        assert legend.x1 <= figure.bbox.width


def test_one_layer_is_no_course_through_the_network(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two layers"):
        draw_layers(Table.of([stored(tmp_path, "random", answers(5, 5))], tmp_path))


def test_colours_are_okabe_and_itos_and_grey_tells_rows_apart() -> None:
    """The palette's published numbers, 0 to 255; then by marker and line alone."""
    published = {(0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0),
                 (86, 180, 233)}  # fmt: skip
    rgb = {tuple(round(255 * v) for v in matplotlib.colors.to_rgb(c)) for c in COLOURS[:6]}
    assert rgb == published
    many = looks(str(i) for i in range(40)).values()
    assert len({(look["marker"], str(look["linestyle"])) for look in many}) == 40


def logged(workspace: Path, name: str, *lines: Any) -> None:
    folder = workspace / "pretrain" / name
    folder.mkdir(parents=True)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "log.jsonl").write_text(text)


def test_trainings_are_drawn_by_step_also_of_a_killed_run(tmp_path: Path) -> None:
    logged(tmp_path, "a-1", {"step": 10, "loss": 2.0, "data_wait": 0.5},
           {"step": 20, "loss": 1.0, "accuracy": 0.5}, '{"step": 30, "lo')  # fmt: skip
    logged(tmp_path, "b-2", {"step": 10, "loss": 3.0, "images_per_second": 9})
    figure = draw_training(logs_of(tmp_path))
    drawn = panels(figure)
    assert [panel.get_ylabel() for panel in drawn] == ["loss", "accuracy"]
    first, second = drawn[0].get_lines()
    assert [*zip(first.get_xdata(), first.get_ydata(), strict=True)] == [(10, 2.0), (20, 1.0)]
    assert [*second.get_ydata()] == [3.0]
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["a-1, not finished", "b-2, not finished"]
    with pytest.raises(UsageError, match="an export has none"):
        logs_of(tmp_path / "pretrain")


def test_what_is_logged_at_many_steps_is_smoothed_and_probes_come_first(tmp_path: Path) -> None:
    losses = [1000.0, *(2.0 + (-1) ** step for step in range(100))]
    lines = [{"step": step, "loss": loss} for step, loss in enumerate(losses)]
    lines[50]["knn.lightly"] = 30.0
    logged(tmp_path, "a-1", *lines)
    probe, loss = panels(draw_training(logs_of(tmp_path)))
    assert (probe.get_ylabel(), loss.get_ylabel()) == ("knn.lightly\nonline probe", "loss")
    assert probe.get_xlim() == loss.get_xlim()
    (raw, mean), (point,) = loss.get_lines(), probe.get_lines()
    assert [*raw.get_ydata()] == losses
    windows = [losses[i : i + 5] for i in range(97)]  # a twentieth of 101
    np.testing.assert_allclose(mean.get_ydata(), [sum(each) / 5 for each in windows])
    assert [*mean.get_xdata()] == list(range(2, 99))
    assert [*point.get_ydata()] == [30.0]
    assert (loss.get_yscale(), probe.get_yscale()) == ("log", "linear")


def test_a_finished_training_is_called_by_its_method(tmp_path: Path) -> None:
    """And the runs of its seeds share a look."""
    records = [*(RESULTS / "quickstart/pretrain").glob("autoencoder-*/record.json")]
    for record in records:
        logged(tmp_path, record.parent.name, {"step": 1, "loss": 1})
        shutil.copy(record, tmp_path / "pretrain" / record.parent.name)
    logs = logs_of(tmp_path)
    assert [log.name for log in logs] == ["autoencoder"] * len(records)
    assert len({line.get_color() for line in panels(draw_training(logs))[0].get_lines()}) == 1


def test_the_command_line_writes_the_same_bytes_each_time(bench: Bench, tmp_path: Path) -> None:
    place = ("--workspace", RESULTS / "quickstart", "--protocol", "linear/logreg")
    found = []
    for out in ("one", "two"):
        for name in ("rows", "differences"):
            said = bench.ok("plot", name, "--out", tmp_path / out, *place)
            assert said.out.startswith(f"{name}: ")
        found.append({p.name: p.read_bytes() for p in (tmp_path / out).iterdir()})
    assert {*found[0]} == {
        f"{name}.{form}" for name in ("rows", "differences") for form in ("png", "svg", "pdf")
    }
    assert found[0] == found[1]
    assert b"<text" in found[0]["rows.svg"]
    with Image.open(tmp_path / "one/rows.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    fails(bench("plot", "training", "--out", tmp_path / "x", *place[:2]), 2, "no training")


def test_on_a_page_drawings_have_its_colours_and_their_own_ids(
    table: Table, tmp_path: Path
) -> None:
    one = inline(draw_layers(table), "f7-", 'a "b" <c>')
    assert f"stroke: {INK}" not in one
    assert "var(--ink)" in one
    assert 'aria-label="a b c"' in one
    ids = {part.split('"')[0] for part in one.split(' id="')[1:]}
    assert ids
    assert all(each.startswith("f7-") for each in ids)
    used = {part.split(")")[0] for part in one.split("url(#")[1:]}
    used |= {part.split('"')[0] for part in one.split('href="#')[1:]}
    assert used <= ids
    titles = [figure.title for figure in page_figures(table, tmp_path)]
    assert titles == ["The declared differences", "The headline columns", "By layer"]
