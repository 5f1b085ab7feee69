"""Encoders that a suite keeps on the way of one training: rows of their own, measured meanwhile."""

from contextlib import ExitStack

import pytest

from helpers.refusals import fails
from pretext.context_encoder import ContextEncoder
from ssl_bench.evaluation import suite_run
from ssl_bench.evaluation.suite import pretrain_config
from ssl_bench.evaluation.suite_file import read_suite
from ssl_bench.records.workspace import read_records
from ssl_bench.runtime import Runtime
from ssl_bench.training.pretrain import Pretraining, pretrain

COURSE = """
name = "course"
data = "scenes:train=60,test=20"
[encoder]
image_size = 64
width = 0.1
[[pretrain]]
method = "context-encoder"
steps = 6
batch_size = 4
keep-at = [4, 2, 6]
[[evaluate]]
evaluation = "knn"
layers = ["conv4"]
k = [3]
"""
WORDS = ("--workers", 0)


@pytest.fixture
def course(tmp_path):
    path = tmp_path / "course.toml"
    path.write_text(COURSE)
    return path


def measured(workspace):
    """The steps at which encoders were measured, controls apart; None: at the end."""
    records = read_records(workspace, "evaluation")
    own = [r for r in records if r.method != "random" and not r.identity.control]
    return [r.details.kept.step if r.details.kept else None for r in own]


def test_kept_steps_are_rows_from_one_training(course, bench, workspace):
    titles = [stage.title for stage in read_suite(str(course)).plan]
    assert titles == [
        f"{name}, seed 0: knn"
        for name in ("random", *(f"context-encoder{at}" for at in (" at step 2", " at step 4", "")))
    ]
    made = bench("run", course, "--workspace", workspace, *WORDS)
    assert made.code == 0, made.err
    assert made.err.count("context-encoder seed 0: 6/6") == 1
    assert measured(workspace) == [2, 4, None]
    rows = [line.split(" | ")[0].strip("| ") for line in made.out.splitlines()[2:6]]
    steps = [f"context-encoder, step {step} of 6" for step in (2, 4)]
    assert rows == ["random", *steps, "context-encoder"]
    assert "over 2 runs" in made.out  # controls: the floor's and the last encoder's
    for more in ((), ("--finished",)):
        assert bench("run", course, "--workspace", workspace, *WORDS, *more).out == made.out


@pytest.mark.parametrize("steps", ["[0]", "[7]", '["x"]', "3"])
def test_a_step_that_no_row_reaches_is_refused(course, bench, workspace, steps):
    course.write_text(COURSE.replace("[4, 2, 6]", steps))
    fails(bench("run", course, "--workspace", workspace, *WORDS), 2, "keep")
    assert not workspace.exists()


def test_what_is_kept_is_measured_while_another_process_trains(
    course, bench, workspace, monkeypatch
):
    """Of a training that is not through; what is not kept yet is waited for, and the rest not."""
    asked = read_suite(str(course))
    entry = asked.methods[1]
    config = pretrain_config(asked, entry, 0)
    train_step = ContextEncoder.train_step

    def killed(self, images, now):
        if now.index == 3:
            raise RuntimeError("killed")
        return train_step(self, images, now)

    monkeypatch.setattr(ContextEncoder, "train_step", killed)
    runtime = Runtime(workers=0, devices="1")
    with pytest.raises(RuntimeError, match="killed"):
        pretrain(entry.method, config, asked.data, workspace, runtime, keep_at=[2, 4])
    monkeypatch.setattr(ContextEncoder, "train_step", train_step)
    words = ("run", course, "--workspace", workspace, *WORDS)
    # Nothing is computed: step 2 was kept, and has no number yet.
    fails(bench(*words, "--finished"), 1, "there is no number")
    training = Pretraining.of(entry.method, config, asked.data, workspace, runtime).run
    looks = []

    def look(seconds):
        looks.append(measured(workspace))
        held.close()  # the other process has gone

    monkeypatch.setattr(suite_run.time, "sleep", look)
    with ExitStack() as held:
        held.enter_context(training.working())
        assert bench(*words).code == 0
    assert looks == [[2]]
    assert measured(workspace) == [2, 4, None]
