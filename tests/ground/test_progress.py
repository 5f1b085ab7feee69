"""Waits say what they are, how far and how long; nothing is said of what is quick."""

import itertools
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from ssl_bench import progress as bars
from ssl_bench.progress import Wait, duration, pause, progress, reached, waiting


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (600, "10 min"), (3599, "1 h 0 min"), (7800, "2 h 10 min"),
     (86_399, "1 day 0 h"), (90_000, "1 day 1 h"), (273_600, "3 days 4 h")],
)  # fmt: skip
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_lines_come_ever_less_often() -> None:
    times, now = [], 0.0
    while (now := now + pause(now)) < 7 * 86_400:
        times.append(now)
    assert times[0] == 10
    assert min(b - a for a, b in itertools.pairwise(times)) >= 10
    assert len(times) < 110  # in a week


def test_the_rest_goes_as_what_is_done() -> None:
    wait = Wait("svm", done=30, total=130, first=10, since=100.0)
    assert wait.left(160.0) == 300  # 20 took 60 s
    assert wait.text(160.0) == "svm: 30/130, 5 min left"
    wait.limit, wait.unit = True, "iterations"
    assert wait.text(160.0) == "svm: 30/at most 130 iterations, at most 5 min left"
    assert Wait("svm").text(9.0) == "svm"


def test_what_is_counted_anew_is_timed_anew(hours) -> None:
    with waiting("knn") as wait:
        reached(0, 20_000)
        hours[0] += 100
        reached(20_000, 20_000)
        reached(0, 10_000)
        hours[0] += 30
        reached(1_000, 10_000)
        assert wait.left(hours[0]) == 270


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "QUIET", 0.01)


def until_said(capsys: pytest.CaptureFixture[str], text: str) -> str:
    """Standard error until there is `text` in it."""
    said, end = "", time.monotonic() + 10
    while text not in said and time.monotonic() < end:
        threading.Event().wait(0.005)
        said += capsys.readouterr().err
    assert text in said
    return said


def test_what_takes_long_is_named_within_what_it_belongs_to(impatient, capsys) -> None:
    with waiting("svm of conv5, alexnet"):
        for _ in range(3):  # each is quick, all of them are not
            with waiting("costs"):
                reached(5, 11, "costs")
                until_said(capsys, "svm of conv5, alexnet: costs: 5/11 costs, ")
    capsys.readouterr()
    threading.Event().wait(0.05)
    assert capsys.readouterr().err == ""
    assert not bars._waits


def test_a_bar_without_a_terminal_speaks_while_an_item_is_waited_for(impatient, capsys) -> None:
    for _ in progress(range(2), "decoding", 2):
        until_said(capsys, "decoding: ")
    assert "decoding: 2/2 in " in capsys.readouterr().err


def test_the_quick_and_the_others_of_several_processes_say_nothing(monkeypatch, capsys) -> None:
    with waiting("quick"):
        reached(1, 2)
    monkeypatch.setattr(bars, "QUIET", 0.001)
    monkeypatch.setattr(bars, "is_main_process", lambda: False)
    with waiting("another's"):
        threading.Event().wait(0.05)
    assert list(progress(range(3), "another's", 3)) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_a_wait_ends_with_an_error(impatient) -> None:
    with pytest.raises(KeyError), waiting("svm"):
        raise KeyError
    assert not bars._waits


# ---- what takes days


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test sets, in its only item."""
    clock = [1000.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: clock[0])
    return clock


def steps(clock: list[float], seconds: float, count: int) -> Iterator[int]:
    for step in range(count):
        clock[0] += 500 if step == 0 else seconds  # the first one waits for the workers
        yield step


def test_days_are_said_once_with_what_would_be_a_day(hours, capsys) -> None:
    shown = bars._warning(steps(hours, 3.0, 50), "autoencoder", 91_200, 0, "--steps")
    assert list(shown) == list(range(50))
    said = capsys.readouterr().err
    assert said == (
        "autoencoder: at this speed it takes 3 days 4 h; --steps 29000 would take a day\n"
    )


def test_a_resumed_run_is_not_told_to_be_another(hours, capsys) -> None:
    list(bars._warning(steps(hours, 3.0, 50), "autoencoder", 100_000, 10, "--steps"))
    assert "--steps" not in capsys.readouterr().err


def test_what_takes_less_than_a_day_is_not_warned_of(hours, capsys) -> None:
    list(bars._warning(steps(hours, 3.0, 50), "autoencoder", 20_000, 0, "--steps"))
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar_with_hours(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress(range(3), "training", 3)) == [0, 1, 2]
    said = capsys.readouterr().err
    assert "training" in said
    assert "3/3" in said
