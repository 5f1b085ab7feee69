"""Several processes at once: each run is made once, and nothing is lost."""

import shutil
import signal
from functools import partial

import pytest

import ssl_bench
from helpers.bench import overriding
from helpers.disturbances import (
    PLACES,
    SUITE,
    TRAINING,
    Results,
    all_done,
    ask,
    checked,
    done,
    meet,
    results,
    slow_disk,
    steps_logged,
    until,
    use_cache,
    waits,
)
from helpers.refusals import half_written, only
from ssl_bench.records.workspace import read_records


def test_processes_share_a_suite(start, run, workspace, whole, printed, tmp_path):
    """On an empty workspace and cache: each key is computed once, and all print the same."""
    count = 3
    hooks = [partial(use_cache, tmp_path / "cache"), partial(meet, tmp_path / "meeting", count)]
    running = [start(*run, hooks=hooks) for _ in range(count)]
    answers = all_done(running)
    assert {answer.out for answer in answers} == {printed}
    said = "".join(answer.err for answer in answers)
    assert said.count("decoding") == 2  # train and test
    assert said.count("autoencoder seed 0: 4/4") == 1
    assert said.count("features of train") == 2  # of two encoders
    assert steps_logged(workspace) == [1, 2, 3, 4]
    checked(workspace, results(whole))


def test_reader_sees_whole_records_only(start, run, workspace, whole):
    """Whoever reads all the while finds more and more runs, each as it stays."""
    running = [start(*run) for _ in range(2)]
    seen: Results = {}
    while any(each.alive for each in running):
        now = results(workspace)
        assert now.items() >= seen.items()
        seen = now
        if any(record.kind == "evaluation" for record in read_records(workspace)):
            done("table", "--workspace", workspace)
    all_done(running)
    assert seen, "nothing was read while they ran"
    assert seen.items() <= results(whole).items()


def test_suites_share_runs(start, run, other, workspace, whole, tmp_path):
    hooks = [partial(meet, tmp_path / "meeting", 2)]
    second = (run[0], other, *run[2:])
    running = [start(*run, hooks=hooks), start(*second, hooks=hooks)]
    answers = all_done(running)
    assert "".join(answer.err for answer in answers).count("autoencoder seed 0: 4/4") == 1
    found = results(workspace)
    assert found.items() > results(whole).items()
    assert len(found) == len(results(whole)) + 2 * 3  # conv5, the probe and its control, twice
    assert done("verify", workspace).out == ""
    assert half_written(workspace) == []


def test_pretraining_twice(start, workspace, tmp_path):
    words = (*TRAINING, "--workspace", workspace)
    running = [start(*words, hooks=[partial(meet, tmp_path / "meeting", 2)]) for _ in range(2)]
    first, second = all_done(running)
    assert first.out == second.out  # the speed in it, too: there is one record
    assert (first.err + second.err).count("autoencoder seed 0: 6/6") == 1
    assert steps_logged(workspace) == list(range(1, 7))


@pytest.mark.parametrize("place", PLACES)
def test_one_is_killed_and_the_other_goes_on(
    start, run, workspace, whole, printed, tmp_path, place
):
    """The first holds the lock when it dies; the second has waited for it."""
    hooks = [partial(use_cache, tmp_path / "cache")]
    first, second = start(*run, hooks=hooks, at=place), start(*run, hooks=hooks)
    waits(second)
    first.kill()
    answer = second.result()
    assert (answer.code, answer.out) == (0, printed), answer
    assert half_written(tmp_path / "cache") == []
    checked(workspace, results(whole))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_waits_can_be_stopped(start, run, workspace, whole, number):
    first, second = start(*run, at="ssl_bench.records.workspace.Run.finish"), start(*run)
    waits(second)
    second.send(number)
    answer = second.result(10)
    assert answer.code == {signal.SIGINT: 130, signal.SIGTERM: -signal.SIGTERM}[number]
    assert "Traceback" not in answer.err
    first.go_on()
    assert first.result().code == 0
    checked(workspace, results(whole))


def test_ctrl_c_ends_a_training_after_its_step(start, workspace):
    """The thread that reads ahead ends, too: the process is gone, not only its last line."""
    endless = overriding(TRAINING, "--steps", 100_000)
    training = start(*endless, "--workspace", workspace)
    until(lambda: list(workspace.glob("pretrain/*/checkpoint.pt")))
    training.send(signal.SIGINT)
    answer = training.result(10)
    assert answer.code == 130
    assert "stopped after step" in answer.err.splitlines()[-1]


def test_the_folder_that_is_waited_for_disappears(start, workspace):
    """Someone follows the advice to remove a run's folder: who waits for it makes it anew."""
    words = (*TRAINING, "--workspace", workspace)
    first, second = start(*words, at="ssl_bench.records.workspace.Run.finish"), start(*words)
    waits(second)
    shutil.rmtree(only(workspace, "pretrain/*"))
    first.kill()
    answer = second.result()
    assert answer.code == 0, answer
    assert steps_logged(workspace) == list(range(1, 7))


def test_a_suite_that_asks_twice_does_not_wait_for_itself(suite, workspace, whole):
    path = suite.with_name("twice.toml")
    path.write_text(SUITE + SUITE[SUITE.index("[[evaluate]]") :])
    answer = ask("run", path, "--workers", "0", "--workspace", workspace, seconds=15)
    assert answer.code == 0, answer
    assert results(workspace) == results(whole)


@pytest.mark.parametrize(
    "words", ["table --out {out}", "report --out {out}.html", "run {suite} --workers 0 --out {out}"]
)
def test_two_write_to_one_place(start, suite, whole, tmp_path, words):
    """Both succeed, and what they wrote is whole."""
    line = (*words.format(out=tmp_path / "out", suite=suite).split(), "--workspace", whole)
    hooks = [slow_disk, partial(meet, tmp_path / "meeting", 2)]
    running = [start(*line, hooks=hooks) for _ in range(2)]
    all_done(running)
    assert half_written(tmp_path) == []


def test_export_while_a_suite_runs(start, run, suite, workspace, whole, tmp_path):
    out = tmp_path / "out"
    words = ("export", suite, "--out", out, "--workers", "0", "--workspace", workspace)
    running = [start(*run), start(*words)]
    all_done(running)
    assert done("verify", out).out == ""
    checked(workspace, results(whole))


@pytest.mark.parametrize(
    "place", ["ssl_bench.training.pretrain.save_encoder", "ssl_bench.training.loop._Run.save"]
)
def test_import_while_a_suite_runs(start, run, workspace, exported, whole, printed, place):
    """The suite goes on with what it finds; the import may wait for what is at work."""
    running = start(*run, at=place)
    importing = start("import", exported, "--workspace", workspace)
    until(lambda: importing.waiting or not importing.alive)
    running.go_on()
    answer = running.result()
    assert (answer.code, answer.out) == (0, printed), answer
    assert importing.result().code == 0
    assert results(workspace) == results(whole)


def test_imported_runs_count_as_made(run, workspace, exported, printed):
    """Weights are not exported; the suite's numbers are all there."""
    done("import", exported, "--workspace", workspace)
    answer = ask(*run)
    assert (answer.code, answer.out) == (0, printed), answer


def test_what_is_made_again_apart_is_not_counted(start, copy):
    """`bench rerun` makes a run within the workspace: no reader counts it, also after a kill."""
    key = read_records(copy, "evaluation")[0].key
    before = ssl_bench.load_records(copy)
    words = ("rerun", key, "--workers", "0", "--workspace", copy)
    running = start(*words, at="ssl_bench.trust.rerun._differences")
    running.kill()
    assert len(ssl_bench.load_records(copy)) == len(before)
    answer = ask("verify", copy)
    assert (answer.code, answer.out) == (0, ""), answer
