"""Clocks that jump change nothing."""

import json
import os
from functools import partial

import pytest

from helpers.disturbances import (
    STARTING,
    STUCK,
    SUITE,
    TRAINING,
    VISSL,
    ask,
    checked,
    clock,
    done,
    results,
    steps_logged,
    waits,
)
from helpers.refusals import TOY, only
from ssl_bench.cli.runs import run_lines
from ssl_bench.evaluation.defaults import default_encoders
from ssl_bench.records.workspace import find_run, read_records


@pytest.mark.parametrize(("days", "step"), [(36500, -1), (-10000, 400)])
def test_the_clock_is_of_no_account(run, workspace, whole, printed, days, step):
    """Wrong, or jumping by days while the suite runs: the same runs, table and durations."""
    assert done(*run, hooks=[partial(clock, days, step)]).out == printed
    checked(workspace, results(whole))
    for record in read_records(workspace):
        assert 0 <= record.provenance.seconds < STUCK
        if training := getattr(record.details, "training", None):
            assert training["images_per_second"] > 0
            assert 0 <= training["data_wait"] <= 1


def test_the_newest_run_is_the_one_that_says_so(workspace):
    """By the time in the record, whatever the clock was then: all commands agree on it."""
    for seed, days in enumerate((0, 400, -400)):
        hooks = [partial(clock, days)]
        done(*STARTING, "--seed", seed, "--workspace", workspace, hooks=hooks)
    records = read_records(workspace)
    assert [record.identity.config["seed"] for record in records] == [2, 0, 1]
    assert find_run(workspace, "random") == records[-1]
    assert default_encoders(workspace) == [f"random@{records[-1].key[:12]}"]
    listed = done("runs", "--workspace", workspace).out.splitlines()[1:]
    assert [line.split("random@")[1][:12] for line in listed] == [r.key[:12] for r in records]


def test_a_tie_is_broken_alike_everywhere(workspace):
    """Runs of one moment have an order that does not depend on the file system."""
    for seed in range(6):
        done(*STARTING, "--seed", seed, "--workspace", workspace)
    for path in workspace.glob("*/*/record.json"):
        record = json.loads(path.read_text())
        record["provenance"]["finished"] = "2020-02-02T00:00:00Z"
        path.write_text(json.dumps(record))
    keys = [record.key[:12] for record in read_records(workspace)]
    assert keys == sorted(keys)
    assert find_run(workspace, "random").key[:12] == keys[-1]
    assert [line.split("random@")[1][:12] for line in run_lines(workspace)[1:]] == keys


@pytest.mark.parametrize("disturbance", ["the clock was set back", "another suite was first"])
def test_an_export_agrees_with_itself(other, suite, workspace, tmp_path, disturbance):
    """In which order a suite's runs were finished is no disagreement."""
    path, out = suite.with_name("turned.toml"), tmp_path / "out"
    place = ("--workers", "0", "--workspace", workspace)
    hooks = []
    if disturbance == "another suite was first":
        path.write_text(SUITE.replace("[[evaluate]]", f"{VISSL}[[evaluate]]"))
        done("run", suite, *place)
    else:
        path.write_text(SUITE + VISSL)
        hooks = [partial(clock, 0, -1)]
    done("export", path, "--out", out, *place, hooks=hooks)
    answer = ask("verify", out)
    assert (answer.code, answer.out) == (0, ""), answer
    done("import", out, "--workspace", tmp_path / "taken")


@pytest.mark.parametrize("when", [0, 2**33])
def test_a_lock_has_no_age(start, workspace, when):
    """A lock's file from 1970 or the future holds as long as its process lives, and no longer."""
    words = (*TRAINING, "--workspace", workspace)
    first = start(*words, at="ssl_bench.training.pretrain.save_encoder")
    for path in (only(workspace, "pretrain/*/.lock"), only(workspace, "pretrain/*/checkpoint.pt")):
        os.utime(path, (when, when))
    second = start(*words)
    waits(second)
    first.kill()
    answer = second.result()
    assert answer.code == 0, answer
    assert "continuing at step 4 of 6" in answer.err
    assert steps_logged(workspace) == list(range(1, 7))


def test_photographs_of_other_times_are_the_same(tiny_photos, workspace, tmp_path):
    """All times of a set jump, as after a restored backup: its run is answered from the record."""
    words = ("pretrain", "autoencoder", *TOY, "--steps", "2", "--batch-size", "4")
    words += ("--data", f"folder:{tiny_photos}", "--workspace", workspace)
    first = done(*words)
    for when in (0, 2**33):
        for path in tiny_photos.rglob("*"):
            os.utime(path, (when, when))
        again = done(*words)
        assert again.out == first.out
        assert "autoencoder seed 0" not in again.err
    photo = only(tiny_photos, "train/ant/0.jpg")
    photo.write_bytes((tiny_photos / "train/bee/0.jpg").read_bytes())
    os.utime(photo, (2**33, 2**33))
    assert "autoencoder seed 0: 2/2" in done(*words).err
    assert len(read_records(workspace)) == 2
