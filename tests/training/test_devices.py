"""Evaluations that train on two processes: they see what one sees, and one of them writes."""

import numpy as np
import pytest

from helpers.bench import Bench, launched
from helpers.refusals import PROBE, SCENES, TOY, fails, only
from ssl_bench.records.workspace import read_records

TRAINING = ("--steps=3", "--batch-size=4", "--workers=0", "--layer=conv4")
COMMANDS = {
    "finetune": ("--head=16", "--crops=1", "--lr=0.01"),
    "finetune --protocol=linear-head": ("--labels=2",),
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
