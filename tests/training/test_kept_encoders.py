"""Encoders kept on the way: what is kept, that it changes nothing, and what it is called."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import ssl_bench
from helpers.bench import call, overriding
from helpers.interrupted import interrupted_at
from helpers.refusals import SCENES, TOY, fails, only
from pretext.context_encoder import ContextEncoder
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.errors import UsageError
from ssl_bench.evaluation.defaults import default_encoders
from ssl_bench.evaluation.reference import Reference
from ssl_bench.records.command import command_of
from ssl_bench.records.record import PretrainRecord
from ssl_bench.records.workspace import find_run, folder_of, read_records
from ssl_bench.tables.pretraining import pretraining_of
from ssl_bench.tables.table import Table
from ssl_bench.trust.sharing import export, import_runs
from ssl_bench.trust.verify import disagreements

STEPS, KEPT = 9, (3, 6)
TRAIN = ("pretrain", "context-encoder", *TOY, *SCENES, "--steps", STEPS, "--batch-size", 4)
KEEP = ("--keep-at", ",".join(map(str, KEPT)))


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training, two encoders kept on its way, and the floor; all but one measured."""
    folder = tmp_path_factory.mktemp("course")
    call(*TRAIN, *KEEP, "--workspace", folder)
    call("pretrain", "random", *TOY, *SCENES, "--workspace", folder)
    probe = ("knn", "--k", 3, "--layer", "conv4", "--workers", 0, *SCENES, "--workspace", folder)
    names = ("random", "context-encoder", f"context-encoder@{parent_of(folder).key[:5]}:3")
    call(*probe, *(word for name in names for word in ("--encoder", name)))
    return folder


@pytest.fixture
def copied(course: Path, tmp_path: Path) -> Path:
    shutil.copytree(course, tmp_path / "copied")
    return tmp_path / "copied"


def parent_of(folder: Path) -> PretrainRecord:
    return find_run(folder, "context-encoder")


def kept_in(folder: Path) -> dict[int, PretrainRecord]:
    runs = read_records(folder, "pretrain")
    return {run.identity.kept: run for run in runs if run.identity.kept}


def digests(folder: Path) -> dict[int, str]:
    """Of the weights that were kept and of the last, by step, as the files have them."""
    runs = {**kept_in(folder), STEPS: parent_of(folder)}
    return {step: Reference(run.reference, folder).digest for step, run in runs.items()}


# ---- what is kept
def test_what_is_kept_is_what_a_run_has_that_stops_there(course, bench, workspace):
    """By the checkpoint of a run that keeps nothing; stopped in a step, it ends the step."""
    for step in KEPT:
        with interrupted_at(step - 1):
            assert bench(*TRAIN, "--workspace", workspace).code == 130
        saved = torch.load(only(workspace, "pretrain/*/checkpoint.pt"), weights_only=True)
        assert saved["step"] == step
        own = {n.removeprefix("encoder."): t for n, t in saved["task"].items()
               if n.startswith("encoder.")}  # fmt: skip
        assert weights_digest(own) == kept_in(course)[step].details.encoder.digest
    bench.ok(*TRAIN, "--workspace", workspace)
    alone, kept = parent_of(workspace), parent_of(course)
    assert (alone.key, alone.details.encoder, alone.metrics, alone.identity) == (
        kept.key, kept.details.encoder, kept.metrics, kept.identity
    )  # fmt: skip
    assert not kept_in(workspace)


def test_a_kept_encoder_says_where_it_was_kept(course):
    parent, runs = parent_of(course), kept_in(course)
    assert set(runs) == set(KEPT)
    assert len(set(digests(course).values())) == 3
    log = (folder_of(course, parent) / "log.jsonl").read_text().splitlines()
    losses = {line["step"]: line["loss"] for line in map(json.loads, log)}
    for step, run in runs.items():
        assert run.key != parent.key
        assert run.identity.training == parent.identity.training == parent.key
        assert run.details.kept is not None
        assert run.details.kept.run == parent.key
        assert (run.details.kept.step, run.details.kept.images_seen) == (step, 4 * step)
        assert 0 < run.details.kept.seconds <= run.provenance.seconds + 1
        assert run.details.encoder.start == parent.details.encoder.start
        assert run.metrics == {"loss": pytest.approx(losses[step])}
        assert [*run.files] == ["encoder.safetensors"]
        assert command_of(run) == f"{command_of(parent)} --keep-at {step}"


def stopped_after(step: int, folder: Path, *words: object) -> None:
    """The process ends in the step behind, without a word, as by a kill."""
    plain = ContextEncoder.train_step

    def train_step(self, images, now):
        if now.index == step:
            raise RuntimeError("killed")
        return plain(self, images, now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContextEncoder, "train_step", train_step)
        with pytest.raises(RuntimeError, match="killed"):
            call(*TRAIN, *words, "--checkpoint-every", 5, "--workspace", folder)


@pytest.mark.parametrize("lost", [False, True])
def test_a_run_that_is_killed_behind_a_kept_step_keeps_the_same(course, workspace, bench, lost):
    """It goes on before that step, from 5; a record that is lost is made again."""
    stopped_after(7, workspace, *KEEP)
    first = kept_in(workspace)
    assert set(first) == set(KEPT)  # there before the run is finished
    assert find_run(workspace, f"context-encoder@{first[6].identity.training}:6") == first[6]
    if lost:
        shutil.rmtree(folder_of(workspace, first[6]))
    bench.ok(*TRAIN, *KEEP, "--workspace", workspace)
    assert digests(workspace) == digests(course)
    assert (kept_in(workspace) == first) != lost


def test_the_last_step_is_the_run_itself(course, bench):
    before = read_records(course, "pretrain")
    bench.ok(*TRAIN, "--keep-at", STEPS, "--workspace", course)
    assert read_records(course, "pretrain") == before
    parent = parent_of(course)
    assert find_run(course, f"context-encoder@{parent.key}:{STEPS}") == parent


def test_a_training_rests_behind_a_step_and_goes_on_from_it(course, workspace, bench):
    resting = (*TRAIN, *KEEP, "--until", "6", "--workspace", workspace)
    assert f"@{parent_of(course).key[:12]}:6" in bench.ok(*resting).out
    assert set(kept_in(workspace)) == {3, 6}
    assert not any(not run.identity.kept for run in read_records(workspace, "pretrain"))
    kept = kept_in(workspace)
    bench.ok(*resting)
    assert kept_in(workspace) == kept
    bench.ok(*TRAIN, *KEEP, "--workspace", workspace)
    assert digests(workspace) == digests(course)
    assert "resumed_at" in parent_of(workspace).model_dump_json()
    assert (parent_of(workspace).details.training or {})["resumed_at"] == 6
    fails(bench(*TRAIN, "--until", STEPS + 1, "--workspace", workspace), 2, "--until 10")


# ---- what cannot be kept
@pytest.mark.parametrize("steps", ["0", "-3", "3,10", "x", "3,,6"])
def test_a_step_that_is_not_reached_is_refused_before_anything_is_decoded(steps, workspace, bench):
    words = overriding(TRAIN, "--data", "folder:nowhere")
    fails(bench(*words, f"--keep-at={steps}", "--workspace", workspace), 2, "--keep-at")
    assert not workspace.exists()


def test_what_has_no_steps_keeps_nothing(workspace, bench):
    fails(bench("pretrain", "random", *KEEP, "--workspace", workspace), 2, "No such option")


def test_a_step_that_has_passed_is_not_missed_in_silence(course, workspace, bench):
    finished = bench(*TRAIN, "--keep-at", "2,3", "--workspace", course)
    fails(finished, 2, "is finished", "--keep-at 2 was", f"remove {course}", "trains it anew")
    stopped_after(7, workspace)
    halfway = bench(*TRAIN, *KEEP, "--workspace", workspace)
    fails(halfway, 2, "goes on at step 5", "--keep-at 3 was", f"remove {workspace}")
    bench.ok(*TRAIN, "--keep-at", "6", "--workspace", workspace)
    assert digests(workspace) == {step: digests(course)[step] for step in (6, STEPS)}


# ---- what it is called
def test_no_kept_encoder_is_the_newest(course):
    assert default_encoders(course) == [parent_of(course).reference, "random@" + find_run(
        course, "random").key[:12]]  # fmt: skip
    (half, *_) = kept_in(course).values()
    assert find_run(course, f"context-encoder@{half.key}") == half
    assert Reference(half.reference, course).pretext is None  # of its decoder nothing was kept


@pytest.mark.parametrize("step", ["4", "x", "", "03"])
def test_a_step_that_was_not_kept_is_named(course, step):
    with pytest.raises(UsageError, match=rf"no encoder context-encoder@\w+:{step}: .*:3, .*:6"):
        find_run(course, f"context-encoder@{parent_of(course).key[:4]}:{step}")


def test_runs_are_listed_by_training(course, bench):
    key = parent_of(course).key[:12]
    lines = [line for line in bench.ok("runs", "--workspace", course).out.splitlines()
             if " pretrain " in line]  # fmt: skip
    names = [line.split()[3] for line in lines]
    assert names == [f"context-encoder@{key}{end}" for end in ("", ":3", ":6")] + [names[-1]]


def test_a_kept_run_is_shown_and_made_again(course, bench):
    asked = f"{parent_of(course).key[:6]}:3"
    assert "--keep-at 3" in bench.ok("show", asked, "--workspace", course).out
    again = bench.ok("rerun", asked, "--workers", 0, "--workspace", course)
    assert "the same, bit for bit" in again.out
    fails(bench("show", asked + "0", "--workspace", course), 2, "no run in")


def test_rows_say_their_step(course, bench):
    table = Table.of(read_records(course, "evaluation"), course)
    row = "context-encoder, step 3 of 9"
    assert list(table.rows) == ["random", "context-encoder", row]
    assert (row, "random") in table.pairs
    assert table.called("context-encoder") == ["context-encoder"]
    assert pretraining_of(table, row).startswith("3 of 9 steps of 4 on scenes")
    reference = kept_in(course)[3].reference
    compared = bench.ok("compare", reference, "random", "--workspace", course).out
    assert f"A: {reference}, 3 of 9 steps" not in compared  # random has no length to differ from
    assert "knn/dinov2@1 k=3 conv4" in compared
    assert row in bench.ok("table", "--method", row, "--workspace", course).out
    frame = ssl_bench.load_records(course)
    assert sorted(frame.pretraining_step.dropna().unique()) == [3, STEPS]


def test_kept_runs_are_verified_and_travel(course, copied, tmp_path):
    assert list(disagreements(copied)) == []
    export(read_records(copied, "evaluation"), copied, tmp_path / "out")
    assert list(disagreements(tmp_path / "out")) == []
    # Of the kept ones, that which was measured; its training, as the other row.
    assert import_runs(tmp_path / "out", tmp_path / "new") == 6
    assert set(kept_in(tmp_path / "new")) == {3}
    for kind in ("pretrain", "evaluation"):
        for path in copied.glob(f"{kind}/*/record.json"):
            path.write_text(path.read_text().replace('"step": 3', '"step": 6'))
    said = list(disagreements(copied))
    assert any("it was not kept where its details say" in line for line in said)
    assert any("does not say at which step" in line for line in said)
