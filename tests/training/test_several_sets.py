"""Pretraining on several sets: what a record says of them, how it is made again, suites, tables."""

import json
from pathlib import Path

import pytest

from helpers.bench import Bench
from helpers.refusals import contents, fails
from ssl_bench.data.store.concat import joined_digest
from ssl_bench.evaluation.suite_file import read_suite
from ssl_bench.records.record import PretrainRecord
from ssl_bench.records.workspace import folder_of, read_records
from ssl_bench.runtime import Runtime
from ssl_bench.training.pretext import EncoderConfig
from ssl_bench.training.pretrain import Pretraining

SCENES = "scenes:train=12,test=6"
TOY = ("--image-size", 64, "--width", 0.1, "--workers", 0)
STEPS = ("--steps", 2, "--batch-size", 4)


def of(method: str, workspace: Path) -> PretrainRecord:
    return next(r for r in read_records(workspace, "pretrain") if r.method == method)


@pytest.mark.parametrize(
    ("method", "more"),
    [("random", ()), ("context-encoder", (*STEPS, "--preview"))],
)
def test_a_record_says_each_set_and_is_made_again(bench, tiny_photos, workspace, method, more):
    """The folder's place is remembered by its own name and digest, and stands in no record."""
    data = ("--data", f"folder:{tiny_photos}", "--data", SCENES)
    bench.ok("pretrain", method, *TOY, *data, *more, "--workspace", workspace)
    record = of(method, workspace)
    photos, scenes = record.details.sets
    assert (photos.name, photos.images) == ("folder:photos", 18)
    assert (scenes.name, scenes.images) == (SCENES, 12)
    assert record.data == f"folder:photos + {SCENES}"
    assert record.details.images == 30
    assert record.identity.data == joined_digest([photos.digest, scenes.digest])
    assert str(tiny_photos) not in record.text
    command = bench("show", record.key, "--workspace", workspace).out.splitlines()[1]
    assert f"--data folder:{tiny_photos} --data {SCENES}" in command
    again = bench("rerun", record.key, "--workers", 0, "--workspace", workspace)
    assert again.out == f"{record.key[:12]}: the same, bit for bit\n", again
    assert bench("verify", workspace).code == 0
    (workspace / "places.json").unlink()
    command = bench("show", record.key, "--workspace", workspace).out.splitlines()[1]
    assert f"--data folder:PATH --data {SCENES}" in command
    asked = ("rerun", record.key, "--workspace", workspace)
    fails(bench(*asked), 2, "folder:photos is only a name")
    fails(bench(*asked, "--data", SCENES), 2, "is of 2 sets", "--data names 1")


def test_one_set_is_recorded_as_ever(bench, workspace):
    """Its digest is the set's own, and nothing is said of several."""
    bench.ok("pretrain", "random", *TOY, "--data", SCENES, "--workspace", workspace)
    (record,) = read_records(workspace, "pretrain")
    assert "sets" not in record.details.plain()
    command = bench("show", record.key, "--workspace", workspace).out.splitlines()[1]
    assert command.count("--data") == 1
    other = bench("rerun", record.key, "--workspace", workspace, "--data", SCENES, "--data", "x:y")
    fails(other, 2, "is of one set")


def test_a_set_given_twice_is_refused(bench, workspace):
    words = ("pretrain", "random", *TOY, "--data", SCENES, "--data", SCENES)
    fails(bench(*words, "--workspace", workspace), 2, SCENES, "2 times", "give each set once")
    assert not list(workspace.rglob("record.json"))


def test_verify_looks_at_the_sets(bench, workspace):
    data = ("--data", SCENES, "--data", f"{SCENES},seed=1")
    bench.ok("pretrain", "random", *TOY, *data, "--workspace", workspace)
    record = of("random", workspace)
    path = folder_of(workspace, record) / "record.json"
    for name, value, said in (
        ("digest", "0" * 64, "are not the images that it is made from"),
        ("images", 11, "do not have 24 images together"),
    ):
        edited = json.loads(record.text)
        edited["details"]["sets"][0][name] = value
        path.write_text(json.dumps(edited))
        assert said in bench("verify", workspace).out


SUITE = """
name = "several"
data = "SCENES"
pretrain_data = ["SCENES", "SCENES,seed=1"]
controls = false

[encoder]
image_size = 64
width = 0.1

[[pretrain]]
method = "random"

[[pretrain]]
method = "autoencoder"
steps = 2
batch_size = 4

[[pretrain]]
method = "autoencoder"
steps = 2
batch_size = 4
data = "SCENES"

[[evaluate]]
evaluation = "knn"
layers = ["conv3"]
k = [3]
""".replace("SCENES", SCENES)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "several.toml"
    path.write_text(SUITE)
    return path


def test_a_suite_pretrains_on_several_sets(bench: Bench, suite, workspace):
    words = ("run", suite, "--workers", 0, "--workspace", workspace)
    out = bench.ok(*words).out
    both = f"{SCENES} + {SCENES},seed=1"
    for images in (both, SCENES):
        assert f"| autoencoder on {images} " in out
    records = read_records(workspace, "evaluation")
    assert {r.data for r in records} == {SCENES}
    pretrained = [r.details.pretraining_data for r in records]
    assert sorted(map(str, pretrained)) == [SCENES, both, both]
    before = contents(workspace)
    assert bench.ok(*words, "--finished").out == out
    assert contents(workspace) == before


def test_evaluations_look_at_one_set(bench, suite):
    suite.write_text(SUITE.replace(f'data = "{SCENES}"', 'data = ["scenes", "voc07"]', 1))
    fails(bench("run", suite), 2, "data: ", "pretrain_data")
    suite.write_text(SUITE.replace(",seed=1", ""))
    fails(bench("run", suite), 2, "2 times")
    suite.write_text(SUITE.replace(f', "{SCENES},seed=1"', ""))
    assert read_suite(str(suite)).pretrain_data == (SCENES,)


def test_a_list_of_one_is_that_set(workspace):
    """And its key, whether a suite or a command says it."""
    config = EncoderConfig(image_size=64, width=0.1)
    runs = [
        Pretraining.of("random", config, data, workspace, Runtime(workers=0)).run
        for data in (SCENES, (SCENES,))
    ]
    assert runs[0].key == runs[1].key
