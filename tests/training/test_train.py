"""The loop: the same seed gives the same weights, whatever interrupts or feeds it."""

import json
import os
import signal
import subprocess
import sys
import threading
import types
from contextlib import nullcontext
from copy import deepcopy
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ssl_bench import catalogue
from ssl_bench.data.store.squares import open_store
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.errors import DataError, UsageError
from ssl_bench.records.workspace import folder_of, read_records
from ssl_bench.runtime import Runtime
from ssl_bench.training.build import build_pretext
from ssl_bench.training.checkpoint import load_optimizer
from ssl_bench.training.devices import place, seed_generators
from ssl_bench.training.loop import Interrupted, train

DATA = "scenes:train=24,test=4"
TOY = {"image_size": 64, "width": 0.1, "init": "fan-in", "steps": 6, "batch_size": 8, "lr": 1e-3}


@pytest.fixture(scope="module")
def store():
    return open_store(catalogue.dataset(DATA), "train", 64, workers=0)


def toy(store, **settings) -> tuple[Any, Any]:
    config = catalogue.pretext("context-encoder").Config(**{**TOY, **settings})
    return build_pretext("context-encoder", config, store.normalization)[0], config


def trained(store, folder, runtime=None, **settings):
    """Digest of all weights after training."""
    folder.mkdir(exist_ok=True)
    pretext, config = toy(store, **settings)
    train(pretext, store, config, config.seed, runtime or Runtime(workers=0), folder)
    return weights_digest(pretext.state_dict())


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(store, tmp_path):
    first = trained(store, tmp_path / "a")
    assert trained(store, tmp_path / "b") == first
    assert trained(store, tmp_path / "c", seed=1) != first


def test_a_training_that_ends_early_leaves_no_thread(store, tmp_path):
    """Whatever ends it: what reads ahead holds batches, and would read on."""
    pretext, config = toy(store)
    names = list[str]()

    def failing(images, step):
        names.extend(one.name for one in threading.enumerate())
        raise RuntimeError("a step failed")

    pretext.train_step = failing
    with pytest.raises(RuntimeError, match="a step failed"):
        train(pretext, store, config, 0, Runtime(workers=0), tmp_path)
    assert [name for name in names if name.startswith("prefetch")]
    assert not [one for one in threading.enumerate() if one.name.startswith("prefetch")]


@pytest.mark.parametrize("stop_in", [3, 5])  # the last step leaves a checkpoint, too
def test_an_interrupted_run_continues_to_the_same_weights(stop_in, store, tmp_path):
    whole = trained(store, tmp_path / "whole")
    folder = tmp_path / "cut"
    folder.mkdir()
    pretext, config = toy(store)
    plain = pretext.train_step

    def interrupted(images, step):
        if step.index == stop_in:
            signal.raise_signal(signal.SIGINT)
        return plain(images, step)

    pretext.train_step = interrupted
    with pytest.raises(Interrupted, match=f"stopped after step {stop_in + 1} of 6"):
        train(pretext, store, config, config.seed, Runtime(workers=0), folder)
    assert trained(store, folder) == whole
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_generators_are_seeded_as_by_torch(monkeypatch):
    """Records of the time when torch.manual_seed did it are of the same numbers."""
    torch.manual_seed(2**62 + 5)
    before = torch.rand(4)
    seeded, current = list[Any](), list[Any]()
    monkeypatch.setattr(torch.cuda, "manual_seed", seeded.append)
    monkeypatch.setattr(torch.cuda, "device", lambda one: current.append(one) or nullcontext())
    for device in (torch.device("cpu"), torch.device("cuda", 1)):
        torch.rand(1)
        seed_generators(2**62 + 5, device)
        assert torch.equal(torch.rand(4), before)
    assert (seeded, current) == ([2**62 + 5], [torch.device("cuda", 1)])


def test_a_weight_that_no_child_owns_is_refused_on_several_devices():
    class Bare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.temperature = torch.nn.Parameter(torch.ones(()))

    two: Any = types.SimpleNamespace(world_size=2, device=torch.device("cpu"))
    with pytest.raises(UsageError, match=r"Bare\.temperature must be in a child module"):
        place(Bare(), two)


def test_what_was_logged_after_the_checkpoint_is_not_logged_twice(store, tmp_path):
    folder = tmp_path / "killed"
    folder.mkdir()
    pretext, config = toy(store)
    plain = pretext.train_step

    def dying(images, step):
        if step.index == 5:
            raise RuntimeError("power cut")
        return plain(images, step)

    pretext.train_step = dying
    with pytest.raises(RuntimeError, match="power cut"):
        train(pretext, store, config, 0, Runtime(workers=0, checkpoint_steps=2), folder)
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 4
    assert trained(store, folder) == trained(store, tmp_path / "whole")
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_loss_that_is_not_finite_stops_at_its_step_and_keeps_the_checkpoint(store, tmp_path):
    pretext, config = toy(store)
    plain = pretext.train_step

    def exploding(images, step):
        values = dict(plain(images, step))
        return {**values, "loss": values["loss"] * float("nan")} if step.index == 3 else values

    pretext.train_step = exploding
    with pytest.raises(DataError, match="loss is nan at step 4"):
        train(pretext, store, config, 0, Runtime(workers=0, checkpoint_steps=1), tmp_path)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 3
    assert all(bool(t.isfinite().all()) for t in saved["task"].values())


def test_the_cosine_course_ends_near_zero_and_the_constant_one_stays(store, tmp_path):
    for schedule, last in (("constant", 1.0), ("cosine", 0.067)):
        pretext, config = toy(store, schedule=schedule)
        rates = []
        plain = pretext.train_step

        def noting(images, step, plain=plain, pretext=pretext, rates=rates):
            rates.append(pretext.adam.param_groups[0]["lr"] / 1e-3)
            return plain(images, step)

        pretext.train_step = noting
        (tmp_path / schedule).mkdir()
        train(pretext, store, config, 0, Runtime(workers=0), tmp_path / schedule)
        assert rates[0] == 1
        assert rates[-1] == pytest.approx(last, abs=1e-3)


def _command(workspace, *more):
    options = {
        "--data": DATA, "--image-size": 64, "--width": 0.1, "--init": "fan-in", "--steps": 30,
        "--batch-size": 8, "--lr": 0.001, "--workers": 1, "--checkpoint-every": 3,
        "--workspace": workspace,
    }  # fmt: skip
    words = [str(w) for pair in options.items() for w in pair]
    bench = Path(sys.executable).with_name("bench")
    return [str(bench), "pretrain", "context-encoder", *words, *map(str, more)]


def _torchrun(command):
    """The same command, started by torchrun in two processes."""
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    return [*run, "--master-port", "29517", "-m", "ssl_bench", *command[1:]]


def test_two_processes_see_what_one_sees(bench, tmp_path):
    """Data parallel on the CPU: equal up to the order in which gradients are summed.

    What is kept on the way, the first process keeps, and it looks at the encoder.
    """
    keep = ("--keep-at", 3, "--probe", "knn.lightly", "--probe-every", 1)
    commands = {
        "one": _command(tmp_path / "one", "--devices", 1, *keep),
        "two": _command(tmp_path / "two", "--devices", 2, *keep),
        "torchrun": _torchrun(_command(tmp_path / "torchrun")),
    }
    for command in commands.values():  # enough of each class to ask for some
        command[command.index(DATA)] = "scenes:train=60,test=4"
    weights, records = {}, {}
    for name, command in commands.items():
        if name == "one":  # here, where torch is imported already
            bench.ok(*command[1:])
        else:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run(command, check=True, capture_output=True, env=environment)
        *kept, records[name] = read_records(tmp_path / name, "pretrain")
        assert [run.identity.kept for run in kept] == [3] * (name != "torchrun")
        for run in (*kept, records[name]):
            path = folder_of(tmp_path / name, run) / "encoder.safetensors"
            weights[name, run.identity.kept] = load_file(path)
    for name, step in (("two", None), ("two", 3), ("torchrun", None)):
        for layer, tensor in weights["one", step].items():
            assert torch.allclose(tensor, weights[name, step][layer], atol=2e-4), (name, layer)
        assert records[name].key == records["one"].key
        assert records[name].details.training["devices"] == 2
    curves = [_curve(folder_of(tmp_path / n, records[n])) for n in ("one", "two", "torchrun")]
    assert [*curves[0]] == [*curves[1]] == [8, 15, 23, 30]  # 60 images in steps of 8
    assert all(abs(curves[1][step] - curves[0][step]) <= 10 for step in curves[0])  # one of ten
    assert not curves[2]


def _curve(run: Path) -> dict[int, float]:
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return {line["step"]: line["knn.lightly"] for line in lines if "knn.lightly" in line}


def test_a_batch_that_devices_cannot_share_is_refused(store, tmp_path):
    class Two:
        world_size = 2

    class Pair(Runtime):
        def fabric(self, precision="32"):  # type: ignore[override]
            return Two()

    pretext, config = toy(store, batch_size=5)
    with pytest.raises(UsageError, match="--batch-size 5 is not a multiple of the 2 devices"):
        train(pretext, store, config, 0, Pair(), tmp_path)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("fused", [False, True])
def test_a_checkpoint_of_an_optimiser_that_fuses_goes_on_without_and_the_other_way(kind, fused):
    """As those of earlier versions: 2 steps and 2 more are 4."""
    settings: dict[str, Any] = {"momentum": 0.9} if kind is torch.optim.SGD else {}

    def after(weight, optimizer, steps):
        for step in steps:
            weight.grad = torch.arange(1.0, 4.0) - step
            optimizer.step()
        return weight

    def new(fused, values=(1.0, 2.0, 3.0)):
        weight = torch.nn.Parameter(torch.tensor(values))
        return weight, kind([weight], 0.1, weight_decay=0.1, fused=fused, **settings)

    before, optimizer = new(fused)
    after(before, optimizer, range(2))
    resumed, other = new(not fused, before.tolist())
    load_optimizer(other, optimizer.state_dict())
    assert other.param_groups[0]["fused"] is not fused
    through = after(*new(fused), range(4))
    torch.testing.assert_close(after(resumed, other, range(2, 4)), through)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_a_checkpoint_goes_on_where_weights_lie_otherwise(kind):
    """A CPU's channels lie last, those of a GPU's 32 bit first: 2 steps and 2 more are 4."""
    settings: dict[str, Any] = {"momentum": 0.9} if kind is torch.optim.SGD else {}

    def new(layout):
        start = torch.arange(72.0).view(2, 4, 3, 3) / 72
        weight = torch.nn.Parameter(start.to(memory_format=layout))
        return weight, kind([weight], 0.1, fused=True, **settings)

    def after(weight, optimizer, steps):
        for step in steps:
            optimizer.zero_grad()
            (weight.square() * torch.arange(72.0).view(2, 4, 3, 3) * (step + 1)).sum().backward()
            optimizer.step()
        return weight

    for first, then in permutations((torch.channels_last, torch.contiguous_format)):
        weight, optimizer = new(first)
        after(weight, optimizer, range(2))
        resumed, other = new(then)
        with torch.no_grad():
            resumed.copy_(weight)
        load_optimizer(other, deepcopy(optimizer.state_dict()))
        torch.testing.assert_close(after(resumed, other, range(2, 4)), after(*new(then), range(4)))
