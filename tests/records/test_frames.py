"""Records as a data frame: what `ssl_bench.load_records` gives."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ssl_bench
from helpers.bench import TOY, call
from ssl_bench.errors import DataError, UsageError
from ssl_bench.records.workspace import folder_of, read_records

DATA = ("--data", "scenes:train=20,test=10,seed=2")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Numbers of an encoder, of a network that fills holes, and of rows without an encoder."""
    folder = tmp_path_factory.mktemp("made") / "runs"
    place = ("--workers", 0, "--workspace", folder)
    with pytest.MonkeyPatch.context() as patch:  # drawing takes most of the time of fills
        patch.setattr("ssl_bench.pictures.plots.picture_grid", lambda *_: None)
        call("pretrain", "random", "--init", "fan-in", "--seed", 3, *TOY, *place)
        few = ("--steps", 2, "--batch-size", 4)
        call("pretrain", "context-encoder", *few, *TOY, *place)
        probe = ("linear-probe", "--strengths", 2, "--layer", "conv1", "--seed", 4)
        call(*probe, "--encoder", "random", *DATA, *place)
        call("knn", "--k", 5, "--layer", "conv3", "--encoder", "random", *DATA, *place)
        fills = ("inpainting", "--hole", 20, "--layer", "conv3", "--encoder", "context-encoder")
        call(*fills, *DATA, *place)
    return folder


COLUMNS = {
    "key", "method", "protocol", "layer", "data", "metric", "value", "low", "high",
    "pretraining_seed", "pretraining_step", "seed", "encoder", "weights", "control", "test_images",
    "finished", "workspace",
}  # fmt: skip


def test_a_frame_has_a_line_for_each_metric(made):
    frame = ssl_bench.load_records(made)
    assert set(frame.columns) == COLUMNS
    records = read_records(made, "evaluation")
    named = [(r.key, m) for r in records for m in r.metrics if not m.endswith(("_low", "_high"))]
    assert sorted(zip(frame.key, frame.metric, strict=True)) == sorted(named)


def test_a_frames_values_and_intervals_are_the_records(made):
    frame = ssl_bench.load_records(str(made))
    records = {record.key: record for record in read_records(made, "evaluation")}
    for _, line in frame.iterrows():
        record = records[line.key]
        ends = [record.metrics.get(line.metric + side, np.nan) for side in ("_low", "_high")]
        assert line.value == record.metrics[line.metric]
        np.testing.assert_array_equal([line.low, line.high], ends)
        assert (line.method, line.data, line.layer, line.protocol) == (
            record.method, record.data, record.identity.layer, record.details.protocol,
        )  # fmt: skip
        assert (line.test_images, line.finished, line.workspace) == (
            record.details.test_images, record.provenance.finished, str(made),
        )  # fmt: skip


def test_a_frames_seeds_are_those_that_were_typed(made):
    frame = ssl_bench.load_records(made)
    probe = frame[frame.protocol.str.startswith("linear/logreg@1")]
    assert (probe.seed.tolist(), probe.pretraining_seed.tolist()) == ([4], [3])
    assert set(frame[frame.method == "random"].pretraining_seed) == {3}
    assert set(frame[frame.method == "context-encoder"].pretraining_seed) == {0}
    free = frame[frame.method == "Telea"]
    assert free.encoder.isna().all()
    assert free.pretraining_seed.isna().all()
    (random,) = (r for r in read_records(made, "pretrain") if r.method == "random")
    assert set(probe.encoder) == {random.key}


def test_workspaces_below_a_folder_are_one_frame(made, tmp_path):
    places = [tmp_path / "a", tmp_path / "b" / "c"]
    for place in places:
        shutil.copytree(made, place)
    frame = ssl_bench.load_records(tmp_path)
    assert len(frame) == 2 * len(ssl_bench.load_records(made))
    assert set(frame.workspace) == {str(place) for place in places}


def test_a_frame_of_nothing_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no evaluation"):
        ssl_bench.load_records(tmp_path)


def test_a_damaged_record_is_named(made, tmp_path):
    spoilt = tmp_path / "runs"
    shutil.copytree(made, spoilt)
    record = read_records(spoilt, "evaluation")[0]
    path = folder_of(spoilt, record) / "record.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataError, match=re.escape(str(path))):
        ssl_bench.load_records(spoilt)


def test_the_package_is_imported_in_a_moment():
    """Neither torch nor pandas, until something asks for them."""
    code = "import sys, ssl_bench; print({'torch', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
