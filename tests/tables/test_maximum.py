"""The maximum over a course's steps: worked by hand, and no gain where there is only luck."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.bench import Bench
from helpers.predictions import answers, changed, fills, stored
from helpers.refusals import fails
from ssl_bench.records.record import EncoderIdentity, EvaluationRecord, Kept
from ssl_bench.tables.maximum import Maximum, maxima
from ssl_bench.tables.table import Table

LAST = 400


def number(
    workspace: Path, step: int, predictions: Any, *, seed: int = 0, **own: Any
) -> EvaluationRecord:
    """A record of an encoder of one training at a step."""
    made = stored(workspace, f"simclr-{step}-{seed}", predictions, seed=seed, **own)
    kept = {"kept": Kept(run="p" * 64, step=step)} if step < LAST else {}
    weights = f"{step} {seed}"
    encoder = EncoderIdentity(run=weights, weights=weights, spec={})
    return changed(
        made,
        identity=made.identity.model_copy(update={"encoder": encoder}),
        details={"pretraining": {"steps": LAST, "seed": seed}, **kept},
        method="simclr",
    )


def hits(right: Any) -> dict[str, np.ndarray]:
    return {"label": np.ones(len(right), np.int64), "predicted": np.array(right, np.int64)}


def maximum(workspace: Path, records: list[EvaluationRecord]) -> Maximum:
    (found,) = maxima(Table.of(records, workspace))
    return found


def test_a_course_worked_by_hand(tmp_path: Path) -> None:
    """Four images. Even places choose step 100 (2 of 2), odd ones step 400 (2 of 2).

    Step 100 has 1 of 2 at odd places and the last step 2; the last is read where odd ones choose.
    """
    course = {100: [1, 1, 1, 0], 200: [0, 0, 0, 0], 400: [1, 1, 0, 1]}
    found = maximum(tmp_path, [number(tmp_path, step, hits(row)) for step, row in course.items()])
    assert (found.last, found.best, found.steps) == (75, 75, [100, 200, 400])
    assert found.at == [400]  # of equal steps the last
    assert found.halves == ((50 - 100) + (50 - 50)) / 2
    assert found.cells(1) == [
        "simclr", "1", "3 to 400", "75.0", "75.0 (step 400)", "+0.0", "−25.0",
    ]  # fmt: skip


def test_luck_alone_gains_only_where_it_is_chosen_on_test(tmp_path: Path) -> None:
    """Ten steps, equally good, over 16 drawn courses of 100 images: the expected maximum.

    The best of ten means with a deviation of 5 lies 1.54 of these above the mean of a normal.
    """
    gains, halves = [], []
    for seed in range(16):
        rows = np.random.default_rng(seed).random((10, 100)) < 0.5
        course = [
            number(tmp_path / str(seed), 40 * (i + 1), hits(row)) for i, row in enumerate(rows)
        ]
        found = maximum(tmp_path / str(seed), course)
        gains.append(found.best - found.last)
        halves.append(found.halves)
    assert np.mean(gains) == pytest.approx(1.54 * 5, abs=3 * 5.6 / np.sqrt(16))
    # Nothing: the difference of two equally good ones on 50 images, twice.
    assert abs(np.mean(halves)) < 3 * 7.1 / np.sqrt(16)
    assert np.mean(halves) < np.mean(gains) - 3


def test_seeds_without_the_last_step_are_left_out(tmp_path: Path) -> None:
    rows = [(100, 60, 0), (200, 90, 0), (LAST, 70, 0), (100, 95, 1), (200, 80, 2), (LAST, 90, 2)]
    course = [number(tmp_path, step, answers(n, 100 - n), seed=seed) for step, n, seed in rows]
    found = maximum(tmp_path, course)
    assert (found.seeds, found.last, found.best, found.at) == (2, 80, 90, [200, 400])
    assert found.cells(0)[4] == "90 (step 200, 400)"


def test_less_is_better_of_errors_and_what_has_no_values_has_no_halves(tmp_path: Path) -> None:
    course = [
        number(tmp_path, step, fills(mean, 20 - mean), protocol="inpainting/pathak16@1")
        for step, mean in ((100, 5), (LAST, 9))
    ]
    by_metric = {one.column.split()[-1]: one for one in maxima(Table.of(course, tmp_path))}
    assert (by_metric["l1"].at, by_metric["psnr"].at) == ([100], [100])
    assert by_metric["l1"].best - by_metric["l1"].last == pytest.approx(-4, abs=0.2)
    assert by_metric["l1"].halves == pytest.approx(-4, abs=0.3)
    without = maxima(Table.of(course))  # no workspace: no predictions
    assert {one.halves for one in without} == {None}
    assert without[0].cells(1)[-1] == "–"


def test_the_command(bench: Bench, tmp_path: Path) -> None:
    number(tmp_path, LAST, answers(5, 5))
    words = ("table", "--workspace", tmp_path, "--maximum")
    fails(bench(*words), 2, "--keep-at")
    fails(bench(*words, "--format", "csv"), 2, "--maximum is printed behind a Markdown table")
