"""The end of a suite that welcomes: findings, a page, a filled hole, and commands that exist."""

import shlex
from typing import Any

import pytest

from ssl_bench.cli import cli
from ssl_bench.cli.welcome import NEXT
from ssl_bench.evaluation.suite_file import read_suite

SUITE = """\
name = "mine"
description = "A toy"
data = "scenes:train=40,test=20"
controls = false
welcome = true
[encoder]
image_size = 64
width = 0.1
init = "fan-in"
[[pretrain]]
method = "random"
[[pretrain]]
method = "context-encoder"
steps = 1
batch_size = 4
[[evaluate]]
evaluation = "knn"
k = [5]
layers = ["conv3"]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace for all tests here, and the suite beside it."""
    folder = tmp_path_factory.mktemp("welcome")
    (folder / "mine.toml").write_text(SUITE)
    return folder


def run(bench, place, *words):
    return bench.ok("run", place / "mine.toml", "--workspace", place / "runs", *words).out


def test_what_it_showed_stands_below_the_table_with_pictures_that_are_there(bench, place):
    out = run(bench, place, "--workers", 0)
    said = out[out.index("\nA toy. Measured: 2 rows by knn/dinov2@1") :]
    assert "context-encoder − random" in said
    (page, picture) = (place / "runs/report.html", *place.glob("runs/pretrain/*/preview.png"))
    assert f"All on a page: {page}" in said
    assert f"Filled holes:  {picture}" in said
    assert "context-encoder" in picture.parent.name
    assert out.endswith(f"{NEXT}\n")


def test_the_second_time_nothing_is_drawn_again(bench, place):
    first = run(bench, place, "--workers", 0)
    drawn = [place / "runs/report.html", *place.glob("runs/pretrain/*/preview.png")]
    before = [path.stat().st_mtime_ns for path in drawn]
    assert run(bench, place, "--workers", 0) == first
    assert [path.stat().st_mtime_ns for path in drawn] == before


def test_other_seeds_than_the_suites(bench, place):
    assert "n = 2 seeds" in run(bench, place, "--seeds", 2, "--workers", 0)
    assert read_suite("quickstart", 5).seeds == (0, 1, 2, 3, 4)


def test_the_next_commands_are_commands():
    lines = [shlex.split(line) for line in NEXT.splitlines() if line.startswith("  bench ")]
    assert len(lines) == 3
    for _, *words in lines:
        command: Any = cli
        while hasattr(command, "commands") or hasattr(command, "get_command"):
            command = command.get_command(None, words.pop(0))
        known = {option for parameter in command.params for option in parameter.opts}
        assert known >= {word for word in words if word.startswith("--")}
