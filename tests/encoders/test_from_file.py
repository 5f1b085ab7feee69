"""`file:encoder.py:build`: a network in a Python file, run only where a command names it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.refusals import fails, only
from ssl_bench.cli.inspect import inspect_network
from ssl_bench.data.normalization import IMAGENET
from ssl_bench.encoders.alexnet import AlexNet
from ssl_bench.encoders.from_file import ModuleEncoder, open_file, open_hub
from ssl_bench.errors import UsageError
from ssl_bench.evaluation.reference import Reference
from ssl_bench.evaluation.suite_file import read_suite
from ssl_bench.evaluation.suite_run import suite_records
from ssl_bench.runtime import Runtime

SOURCE = """
from torch import nn
from ssl_bench.data.normalization import HALF
from ssl_bench.encoders.alexnet import AlexNet


class Net(nn.Module):
    image_size, normalization = 64, HALF

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(inplace=True))
        self.stage = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU(inplace=True))
        self.fc = nn.Linear(6, 2)

    def forward(self, x):
        x = self.stem(x)
        x += 1
        return self.stage(x).mean((2, 3))


def build():
    return Net()


def named():
    net = Net()
    net.layers = ("stem.0", "stage")
    return net


def scores():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2))


def flat():
    net = Net()
    net.layers = ("fc",)
    net.forward = lambda x: net.fc(net.stage(net.stem(x)).mean((2, 3)))
    return net


def own():
    return AlexNet(0.1)


def number():
    return 3


def fails():
    raise KeyError("weights\\nof mine")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "encoder.py"
    path.write_text(SOURCE)
    return path


def test_parts_are_layers_and_what_is_returned_is_pooled(file):
    encoder, spec = open_file(f"file:{file}:build")
    assert encoder.layers == ("stem", "stage", "pooled")
    assert (spec.image_size, spec.normalization.mean[0]) == (64, 0.5)
    assert isinstance(encoder, ModuleEncoder)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        maps = encoder(images, encoder.layers)
        model: Any = encoder.model
        stem = model.stem(images)  # before what is added to it in place
        stage = model.stage(stem + 1)
    assert torch.equal(maps["stem"], stem)
    assert torch.equal(maps["stage"], stage)
    assert torch.equal(maps["pooled"], stage.mean((2, 3))[..., None, None])
    ran = []
    model.stage.register_forward_hook(lambda *_: ran.append(1))
    encoder(images, ["stem"])
    assert not ran  # nothing behind the last layer


def test_layers_may_be_named_and_an_encoder_stays_one(file):
    assert open_file(f"file:{file}:named")[0].layers == ("stem.0", "stage", "pooled")
    assert type(open_file(f"file:{file}:own", 96)[0]) is AlexNet


def test_the_files_content_is_in_the_identity_and_what_it_draws_stays(file, tmp_path):
    text = f"file:{file}:build"
    first, again = (Reference(text, tmp_path, run_file=True).identity for _ in range(2))
    assert first == again
    assert first.run == "file:encoder.py:build"
    file.write_text(SOURCE + "\n# another network, for all that is known\n")
    changed = Reference(text, tmp_path, run_file=True).identity
    assert (changed.run, changed.weights) == (first.run, first.weights)
    assert changed.spec["arch"] != first.spec["arch"]


def test_a_checkpoint_is_loaded_into_it(file, tmp_path):
    encoder, _ = open_file(f"file:{file}:build")
    state = {f"module.{n.removeprefix('model.')}": t + 1 for n, t in encoder.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "c.pth")
    text, weights = f"file:{file}:build", str(tmp_path / "c.pth")
    found = Reference(text, tmp_path, weights=weights, run_file=True)
    assert found.name == "file:encoder.py:build weights=c"
    assert torch.equal(found.encoder.state_dict()["model.fc.bias"], state["module.fc.bias"])


def test_it_is_measured_and_inspected(file, bench, tmp_path):
    words = ("--k", 1, "--data", "scenes:train=20,test=10", "--workers", 0)
    done = bench("knn", "--encoder", f"file:{file}:build", *words, "--workspace", tmp_path / "runs")
    assert done.code == 0, done.err
    assert "| file:encoder.py:build |" in done.out
    record = json.loads(only(tmp_path / "runs", "evaluation/*/record.json").read_text())
    assert record["identity"]["layer"] == "pooled"
    assert inspect_network(f"file:{file}:build")["taps"]["stage"] == [6, 16, 16]


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (":nothing", "has no function nothing"),
        (":number", "returns a int, not a module"),
        (":fails", r"file:encoder\.py:fails cannot be used at 224 px: 'weights\\+nof mine'"),
        (":flat", "layer fc gives"),
        ("", "names no function of the file"),
        (".txt:build", "there is no Python file"),
    ],
)
def test_what_is_wrong_is_one_line(file, end, said):
    with pytest.raises(UsageError, match=said) as refused:
        open_file(f"file:{file}{end}")
    assert "\n" not in str(refused.value)


def test_what_a_network_does_not_say_is_assumed_with_a_warning(file, capsys):
    """Pixels of another normalisation would be another number, and nobody would know."""
    open_file(f"file:{file}:build")
    assert "warning" not in capsys.readouterr().err
    _, spec = open_file(f"file:{file}:own")
    assert (spec.image_size, spec.normalization) == (224, IMAGENET)
    said = "own does not say its normalisation and its image size: ImageNet's and 224 px assumed"
    assert said in capsys.readouterr().err
    open_file(f"file:{file}:own", 96)
    said = "own does not say its normalisation: ImageNet's assumed"
    assert said in capsys.readouterr().err


# ---- torch.hub's folders
HUBCONF = """
dependencies = ["torch"]
from hub_network import Net


def small(pretrained=False):
    "A network of this repository."
    return Net()
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder as torch.hub keeps one: hubconf.py imports its neighbour."""
    folder = tmp_path / "someone_networks_main"
    folder.mkdir()
    (folder / "hubconf.py").write_text(HUBCONF)
    (folder / "hub_network.py").write_text(SOURCE)
    return folder


def test_an_entry_of_a_hub_folder_is_the_encoder_that_torch_hub_builds(repository, tmp_path):
    torch.manual_seed(0)
    own: Any = torch.hub.load(str(repository), "small", source="local")
    found = Reference(f"hub:{repository}:small", tmp_path, run_file=True)
    assert found.name == "hub:someone_networks_main:small"
    assert found.encoder.layers == ("stem", "stage", "pooled")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(found.encoder(images, ["pooled"])["pooled"].flatten(1), own(images))
    assert found.spec.arch.startswith("hub:someone_networks_main:small@")
    with pytest.raises(UsageError, match="run only where --encoder names it"):
        Reference(f"hub:{repository}:small", tmp_path)


@pytest.mark.parametrize(
    ("end", "said"), [(":nothing", "cannot be used at 224 px"), ("", "there is no hubconf.py in")]
)
def test_what_is_wrong_with_a_hub_folder_is_one_line(repository, end, said):
    with pytest.raises(UsageError, match=said) as refused:
        open_hub(f"hub:{repository}{end}")
    assert "\n" not in str(refused.value)


# ---- who may run it
def test_only_a_commands_own_words_run_it(tmp_path, bench):
    """Headers, records and suites may come from anybody."""
    mark, path = tmp_path / "ran", tmp_path / "evil.py"
    path.write_text(f"open({str(mark)!r}, 'w')\n")
    text = f"file:{path}:build"
    with pytest.raises(UsageError, match="run only where --encoder names it"):
        Reference(text, tmp_path)
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'name = "s"\ndata = "scenes:train=4,test=4"\nseeds = [0]\n'
        f'[[external]]\nencoder = "{text}"\n[[evaluate]]\nevaluation = "knn"\n'
    )
    with pytest.raises(UsageError, match="run only where --encoder names it"):
        suite_records(read_suite(str(suite)), tmp_path / "runs", Runtime(0, "1"))
    fails(bench("pretrain", "random", "--arch", text), 2, "unknown architecture")
    assert not mark.exists()
