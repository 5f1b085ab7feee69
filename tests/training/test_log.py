"""Trackers hear what log.jsonl says, once each, of a run that is killed and continued, too."""

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import TOY
from ssl_bench import catalogue
from ssl_bench.data.store.squares import open_store
from ssl_bench.errors import UsageError
from ssl_bench.runtime import Runtime
from ssl_bench.training.build import build_pretext
from ssl_bench.training.log import check_trackers, run_id, run_name
from ssl_bench.training.loop import train

STEPS = 6
Heard = list[dict[int, float]]  # of each run that the tracker has: the loss by step


def killed_and_continued(tracker: str, folder: Path) -> None:
    """Six steps, killed in the fifth, behind what the checkpoint of the third holds."""
    folder.mkdir(parents=True)
    store = open_store(catalogue.dataset("scenes:train=24,test=4"), "train", 64, workers=0)
    how = Runtime(workers=0, checkpoint_steps=3, log=(tracker,))
    Config: Any = catalogue.pretext("context-encoder").Config
    config = Config(image_size=64, width=0.1, init="fan-in", steps=STEPS, batch_size=4, lr=1e-3)
    for dies in (True, False):
        pretext: Any = build_pretext("context-encoder", config, store.normalization)[0]
        plain = pretext.train_step

        def step(images, now, plain=plain, dies=dies):
            if dies and now.index == 5:
                raise RuntimeError("power cut")
            return plain(images, now)

        pretext.train_step = step
        if dies:
            with pytest.raises(RuntimeError, match="power cut"):
                train(pretext, store, config, 0, how, folder)
        else:
            train(pretext, store, config, 0, how, folder)


def of_tensorboard(folder: Path) -> Heard:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    found = events.Scalars("loss")
    assert len({event.step for event in found}) == len(found)
    return [{event.step: event.value for event in found}]


def of_mlflow(folder: Path) -> Heard:
    from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

    client = MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'ssl-bench'")
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * len(runs)
    assert {run.data.params["batch_size"] for run in runs} == {"4"}
    histories = [client.get_metric_history(run.info.run_id, "loss") for run in runs]
    assert all(len({each.step for each in one}) == len(one) for one in histories)
    return [{each.step: each.value for each in one} for one in histories]


def of_wandb(folder: Path) -> Heard:
    import wandb  # pyright: ignore[reportMissingImports]
    from wandb.proto import wandb_internal_pb2  # pyright: ignore[reportMissingImports]

    wandb.teardown()  # its process may still be writing the file
    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):  # one of each process
        for data in _leveldb_records(path.read_bytes()[7:]):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            items = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
            if "loss" in items:
                steps = found.setdefault(path.stem, {})
                assert record.history.step.num not in steps
                steps[record.history.step.num] = json.loads(items["loss"])
    assert [*found] == [f"run-{run_id(folder)}"]
    return [*found.values()]


def _leveldb_records(data: bytes) -> Iterator[bytes]:
    """Of LevelDB's log format, behind a header of 7 bytes that counts as the first block's."""
    place, record = 7, b""
    data = bytes(7) + data
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # no room for a record's head: the next block
            place += 32768 - place % 32768
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        record += data[place + 7 : place + 7 + length]
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""
        place += 7 + length


def of_trackio(folder: Path) -> Heard:
    from trackio.sqlite_storage import SQLiteStorage  # pyright: ignore[reportMissingImports]

    names = SQLiteStorage.get_runs("ssl-bench")
    assert names == [run_name(folder)]
    logs = [SQLiteStorage.get_logs("ssl-bench", name) for name in names]
    assert all(len({line["step"] for line in lines}) == len(lines) for lines in logs)
    return [{line["step"]: line["loss"] for line in lines} for lines in logs]


@pytest.mark.parametrize("read", [of_tensorboard, of_mlflow, of_wandb, of_trackio])
def test_a_killed_run_is_one_run_and_each_step_is_heard_once(read, tmp_path, monkeypatch):
    tracker = read.__name__.removeprefix("of_")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # its own way out of wanting a database
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip(tracker)  # with its folders set: some read them as they are imported
    folder = tmp_path / "pretrain" / "context-encoder-1234"
    killed_and_continued(tracker, folder)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    (heard,) = read(folder)
    assert sorted(heard) == [line["step"] for line in lines] == [*range(1, STEPS + 1)]
    assert [heard[line["step"]] for line in lines] == pytest.approx([ln["loss"] for ln in lines])


def test_trackers_are_no_part_of_a_key_and_a_typo_is_answered(bench, workspace):
    words = ("pretrain", "autoencoder", *TOY, "--steps", 2, "--batch-size", 4)
    made = bench.ok(*words, "--workspace", workspace)
    (folder,) = (workspace / "pretrain").iterdir()
    assert not (folder / "tensorboard").exists()
    pytest.importorskip("tensorboard")
    again = bench.ok(*words, "--workspace", workspace, "--log", "tensorboard")
    assert again.out == made.out
    refused = bench(*words, "--workspace", workspace, "--log", "tensorbord")
    assert refused.code == 2
    assert "unknown tracker 'tensorbord'; did you mean tensorboard?" in refused.err


def test_a_tracker_that_is_missing_is_said_before_the_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"wandb is missing: .* 'ssl-bench\[log\]'"):
        check_trackers(["wandb"])
