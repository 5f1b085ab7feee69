"""Evaluations that train on two processes: they see what one sees, and one of them writes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssl_bench
from helpers import two_processes
from helpers.bench import Bench, launched
from helpers.refusals import PROBE, SCENES, TOY, fails, only
from ssl_bench.records.workspace import read_records

TRAINING = ("--steps=3", "--batch-size=4", "--workers=0", "--layer=conv4")
COMMANDS = {
    "finetune": ("--head=16", "--crops=1", "--lr=0.01"),
    "segment": ("--head=16", "--kernel=1", "--short=64", "--longest=64", "--lr=0.01"),
    "detect": ("--head=16", "--rois=8", "--short=64", "--longest=64"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_two_processes_see_what_one_sees(command: str, bench: Bench, tmp_path) -> None:
    """Equal up to the order in which gradients are summed; conv5 lies behind the layer."""
    found = {}
    call = [*command.split(), *COMMANDS[command], *TRAINING, "--data=scenes:train=20,test=6"]
    for devices in ("1", "2"):
        place = tmp_path / devices
        pretrain = ("pretrain", "random", "--init=fan-in", *TOY, "--workspace", place)
        assert bench(*pretrain).code == 0
        more = [f"--devices={devices}", f"--workspace={place}"]
        out = bench(*call, *more).out if devices == "1" else launched([*call, *more])
        assert out.count("| random") == 1
        (record,) = read_records(place, "evaluation")
        path = only(place, "evaluation/*/predictions.npz")
        found[devices] = record.key, dict(np.load(path))
    assert found["1"][0] == found["2"][0]
    for name, one in found["1"][1].items():
        two = found["2"][1][name]
        if name == "detections":  # scores that are nearly equal change places
            one, two = one[..., 1], two[..., 1]
        assert one.shape == two.shape
        assert np.mean(np.isclose(one, two, rtol=1e-2, atol=1e-3)) > 0.98, name


def test_probes_take_one_device(bench: Bench, finished) -> None:
    result = bench(*PROBE, *SCENES, "--devices", "2", "--workspace", finished)
    fails(result, 2, "--devices")


HERE = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(ssl_bench.__file__).parents[1]),
}


def seen_by(folder: Path) -> list[dict[str, Any]]:
    """What two processes of `helpers.two_processes` saw, by rank."""
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def torchrun(folder: Path) -> list[dict[str, Any]]:
    """Two processes as torchrun starts them."""
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    run += ["--master-port=29531", two_processes.__file__, str(folder)]
    subprocess.run(run, capture_output=True, timeout=300, env=HERE)
    return seen_by(folder)


def srun(folder: Path, *more: str) -> list[dict[str, Any]]:
    """Two processes as srun starts them, within the shell of salloc."""
    step = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "interactive", "SLURM_NTASKS": "2",
            "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_ID": "3"}  # fmt: skip
    call = [sys.executable, two_processes.__file__, str(folder), *more]
    started = [
        subprocess.Popen(
            call, env={**HERE, **step, "SLURM_PROCID": str(rank)}, stdin=subprocess.DEVNULL
        )
        for rank in range(2)
    ]
    assert [process.wait(300) for process in started] == [0, 0]
    return seen_by(folder)


def test_processes_wait_for_each_other_at_some_steps_and_log_the_mean_of_all(tmp_path) -> None:
    """Losses are 1 and 2; a line comes every eighth step, an agreement after 20 at most."""
    for seen in torchrun(tmp_path):
        assert seen["ended"] == "finished"
        assert sorted(set(seen["waited"])) == [8, 16, 20, 24, 32, 40]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(n, 1.5) for n in range(8, 41, 8)]


def test_a_loss_that_is_not_finite_in_one_process_stops_both(tmp_path) -> None:
    ended = [seen["ended"] for seen in srun(tmp_path, "broken")]
    assert ended[0] == ended[1]
    assert ended[0].startswith("loss is nan at step 9")
