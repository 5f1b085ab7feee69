"""The pretexts of docs/example: views, a teacher and a queue, clusters between epochs, masks.

They are what the contracts of training are for, so what the contracts promise is tested on them;
that several devices are as one, on ours of two views as well.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import example
from helpers.places import ROOT
from ssl_bench.encoders.weights import weights_digest
from ssl_bench.records.record import PretrainRecord
from ssl_bench.records.workspace import read_records
from ssl_bench.runtime import Runtime
from ssl_bench.training.build import open_pretext


def launched(site: Path, *words: object) -> str:
    """What a process says, or several by torchrun, that finds the package and its caches."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests", site)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *map(str, words)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def record_of(name: str, workspace: Path) -> PretrainRecord:
    """The only one of a method."""
    (found,) = (one for one in read_records(workspace, "pretrain") if one.method == name)
    return found


def test_each_continues_to_the_same_bits_after_a_kill(installed, site, tmp_path):
    """Encoder, heads, teacher, queue and labels; the kill falls on the beginning of an epoch."""
    launched(site, example.__file__, "kill", tmp_path / "killed")
    assert not read_records(tmp_path / "killed")
    assert len(list((tmp_path / "killed").glob("pretrain/*/checkpoint.pt"))) == len(example.RESUMED)
    places = tmp_path / "whole", tmp_path / "killed"
    # With one thread, as the killed ones had: this process may have more, and so other bits.
    launched(site, example.__file__, "train", *places)
    for name in example.RESUMED:
        whole, again = (record_of(name, place) for place in places)
        begun = [(one.details.training or {}).get("resumed_at") for one in (whole, again)]
        assert begun == [0, example.KILLED_IN]
        assert whole.files == again.files
        assert whole.metrics == again.metrics
        encoder = whole.details.encoder
        assert encoder.digest != encoder.start, f"{name} learnt nothing"


def test_an_authors_pretext_trains_a_librarys_network_on_two_processes(site, tmp_path):
    """Two steps: its classifier gets no gradient, of which the author need know nothing."""
    network = ("--arch", "torchvision:resnet18", "--image-size", 32)
    said = launched(
        site, "-m", "ssl_bench", "pretrain", "contrast", *network, "--steps", 2, "--batch-size", 4,
        "--devices", 2, "--data", example.DATA, "--workers", 0, "--workspace", tmp_path,
    )  # fmt: skip
    assert (record_of("contrast", tmp_path).details.training or {})["devices"] == 2
    assert "deprecated" not in said


SHARED = ["contrast", "momentum", "deepcluster", *example.GATHERING]


@pytest.fixture(scope="session")
def by_two(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two")
    run = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29537")
    launched(site, *run, example.__file__, "gradients", out, *SHARED)
    return out


@pytest.mark.parametrize("name", SHARED)
def test_two_processes_have_the_losses_and_gradients_of_one(name, by_two, installed, tmp_path):
    """Over two steps: the second one's gradients know the teacher, the queue, the statistics."""
    one = example.gradients(name, tmp_path, Runtime(workers=0, devices="1"))
    two = torch.load(by_two / f"{name}.pt")
    assert one.keys() == two.keys()
    assert len(one) > 15
    for weight, expected in one.items():
        near = 1e-9 if expected.dtype == torch.float64 else 1e-5
        torch.testing.assert_close(two[weight], expected, rtol=near, atol=near, msg=weight)


def test_what_is_kept_of_each_image_is_opened_again(installed, tmp_path):
    """A label for each of the 24: the buffer's length is the set's, which the record knows."""
    record = example.trained("clusters", tmp_path)
    (folder,) = (tmp_path / "pretrain").iterdir()
    opened = open_pretext(record, folder)
    labels = opened.state_dict()["labels"]
    assert labels.shape == (24,)
    assert len(labels.unique()) > 1
    assert weights_digest(opened.encoder.state_dict()) == record.details.encoder.digest
