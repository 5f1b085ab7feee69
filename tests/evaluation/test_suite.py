"""Suites: one pass an encoder, controls by default, encoders from elsewhere with a floor."""

import subprocess
import sys
from subprocess import PIPE

import pytest
import torch

from helpers.refusals import fails
from ssl_bench.encoders.alexnet import AlexNet
from ssl_bench.evaluation.suite import pretrain_config
from ssl_bench.evaluation.suite_file import read_suite
from ssl_bench.records.workspace import read_records
from ssl_bench.runtime import Runtime
from ssl_bench.training.pretrain import Pretraining

SUITE = """
name = "toy"
data = "scenes:train=60,test=20"

[encoder]
image_size = 64
width = 0.1

[[pretrain]]
method = "autoencoder"
steps = 2
batch_size = 4

[[external]]
encoder = "alexnet"
weights = "WEIGHTS"
image_size = 64
layers = ["conv2"]

[[evaluate]]
evaluation = "linear-probe"
layers = ["conv3", "conv4"]
strengths = 2

[[evaluate]]
evaluation = "knn"
layers = ["conv4"]
k = [3, 5]
"""


@pytest.fixture
def suite(tmp_path):
    torch.manual_seed(0)
    weights = tmp_path / "other.pth"
    torch.save(AlexNet().state_dict(), weights)
    path = tmp_path / "toy.toml"
    path.write_text(SUITE.replace("WEIGHTS", str(weights)))
    return path


def test_controls_are_on_by_default(suite, bench, workspace):
    words = ("run", suite, "--workspace", workspace, "--workers", 0)
    made = bench(*words)
    assert made.code == 0, made.err
    records = read_records(workspace, "evaluation")
    rows = {"random", "autoencoder", "alexnet 64px weights=other"}
    assert {r.method for r in records} == rows  # the floors were not asked for
    assert len([r for r in records if r.method == "random"]) == (3 + 2) + (
        2 + 2
    )  # numbers and controls
    controls = [r for r in records if r.identity.control is not None]
    assert len(controls) == 4 * 2  # four encoders, two probes
    assert "Control, shuffled training labels, knn/dinov2@1" in made.out
    assert "over 4 runs" in made.out
    # Four encoders, and a pass over train and test for each: the two probes share it.
    assert made.err.count("features of train") == 4
    again = bench(*words)
    assert again.out == made.out
    assert "features of" not in again.err


NETWORKS = """
name = "networks"
seeds = [0, 1, 2]
[encoder]
image_size = 64
[[pretrain]]
method = "autoencoder"
[[pretrain]]
method = "simclr"
recipe = "small"
seeds = [1]
[[pretrain]]
method = "byol"
recipe = "small"
seeds = [0]
data = "scenes:train=60,test=20"
[[pretrain]]
method = "mae"
recipe = "small"
layers = ["blocks.3"]
[[pretrain]]
method = "random"
arch = "timm:test_resnet"
[[pretrain]]
method = "vicreg"
recipe = "small"
arch = "timm:test_resnet"
[[evaluate]]
evaluation = "knn"
"""


def test_every_network_has_its_random_floor(tmp_path):
    """Also of a recipe, or of `arch`: at its rows' layers, with the seeds of all of them."""
    path = tmp_path / "networks.toml"
    path.write_text(NETWORKS)
    asked = read_suite(str(path))
    floors = [entry for entry in asked.methods if entry not in asked.pretrain]
    assert asked.methods[: len(floors)] == tuple(floors)
    networks = [pretrain_config(asked, entry, 0) for entry in floors]
    assert [(config.arch, config.image_size, config.init) for config in networks] == [
        ("alexnet", 64, "gaussian"),
        ("torchvision:resnet18", 64, "own"),
        ("timm:vit_small_patch8_224", 64, "own"),
    ]
    assert [(entry.seeds, entry.layers) for entry in floors] == [
        ((), ()), ((0, 1), ()), ((), ("blocks.3",)),
    ]  # fmt: skip
    path.write_text("controls = false\n" + NETWORKS)
    assert read_suite(str(path)).methods == asked.pretrain


def contrast(*words):
    """The end of a suite with a contrast of these keys."""
    return "\n".join(["k = [3, 5]", "[[contrast]]", 'a = "autoencoder"', 'b = "random"', *words])


def test_controls_can_be_turned_off(suite, bench, workspace):
    suite.write_text(suite.read_text().replace('name = "toy"', 'name = "toy"\ncontrols = false'))
    made = bench("run", suite, "--workspace", workspace, "--workers", 0)
    assert made.code == 0, made.err
    records = read_records(workspace, "evaluation")
    assert not [r for r in records if r.identity.control is not None or r.method == "random"]
    assert "Control" not in made.out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('weights = "', 'weigths = "', "did you mean weights"),
        ('encoder = "alexnet"', 'encoder = "timm:resnet19"', "resnet18"),
        ('layers = ["conv2"]', 'layers = ["conv2"]\nevaluations = ["knnn"]', "knn"),
        ("batch_size = 4", "batch_size = 4\nlayers = ['conv9']", "unknown layer 'conv9'"),
        ("batch_size = 4", "batch_size = 4\nlayers = { knnn = ['conv1'] }", "did you mean knn"),
        ("batch_size = 4", "batch_size = 4\nlayers = 3", "pretrain.0.layers"),
        ("batch_size = 4", "batch_size = 4\nseeds = [1]", "unknown seed '1'; known: 0"),
        ("k = [3, 5]", "k = [3, 5]\nseeds = [0, 2]", "unknown seed '2'"),
        ("k = [3, 5]", "k = [3, 0]", "every k is a whole number from 1"),
        ("strengths = 2", "costs = [2]", "costs"),
        ("strengths = 2", "headline = 'conv9'", "unknown layer of linear-probe 'conv9'"),
        ("strengths = 2", "headline = 3", "evaluate.0.headline"),
        ("k = [3, 5]", contrast("evaluation = 'knnn'"), "did you mean knn"),
        ("k = [3, 5]", contrast("layer = 'conv4'"), "layer conv4 needs an evaluation"),
        ("k = [3, 5]", contrast("evaluation = 'knn'\nlayer = 'conv9'"), "layer of knn 'conv9'"),
        ("k = [3, 5]", contrast("evalution = 'knn'"), "did you mean evaluation"),
    ],
)
def test_mistakes_are_found_before_anything_runs(suite, bench, workspace, old, new, said):
    suite.write_text(suite.read_text().replace(old, new, 1))
    fails(bench("run", suite, "--workspace", workspace, "--workers", 0), 2, said)
    assert not workspace.exists()


def test_fewer_seeds_leave_out_what_is_of_others(suite):
    text = suite.read_text().replace("batch_size = 4", "batch_size = 4\nseeds = [1]", 1)
    suite.write_text("seeds = [0, 1, 2]\n" + text.replace("seeds = [0]\n", ""))

    def planned(seeds=None):
        plan = read_suite(str(suite), seeds).plan
        return [(getattr(stage.row, "method", "external"), stage.seed) for stage in plan]

    every = planned()
    assert planned(1) == [one for one in every if one[1] == 0] != every
    assert [seed for method, seed in every if method == "autoencoder"] == [1]


def test_a_file_that_is_too_large_for_a_suite_is_not_read(bench, workspace, tmp_path):
    """Of dotted names, 200 kB take the parser minutes and gigabytes."""
    path = tmp_path / "deep.toml"
    path.write_text("a." * 100_000 + "a = 1\n")
    fails(bench("run", path, "--workspace", workspace), 2, "deep.toml", "more than 64 kB")


def test_a_suite_of_nothing_is_refused(suite, bench, workspace):
    text = suite.read_text()
    text = text[: text.index("[[pretrain]]")] + text[text.index("[[evaluate]]") :]
    suite.write_text(text)
    fails(bench("run", suite, "--workspace", workspace), 2, "[[pretrain]] or [[external]]")


ROWS = """
name = "rows"
data = "scenes:train=60,test=20"
seeds = [3, 4]
controls = false

[[pretrain]]
method = "random"
arch = "dcgan"
image_size = 128
width = 0.05
init = "dcgan"
layers = { knn = ["conv2", "bottleneck"] }
evaluations = ["knn"]
seeds = [4]

[[pretrain]]
method = "random"
image_size = 64
width = 0.1
init = "fan-in"

[[evaluate]]
evaluation = "knn"
layers = ["conv1"]
k = [3]

[[evaluate]]
evaluation = "linear-probe"
layers = ["pool5"]
strengths = 2
seeds = [3]
"""


def test_rows_have_layers_evaluations_and_seeds_of_their_own(bench, workspace, tmp_path):
    path = tmp_path / "rows.toml"
    path.write_text(ROWS)
    made = bench("run", path, "--workspace", workspace, "--workers", 0)
    assert made.code == 0, made.err
    done = [
        (r.pretraining["arch"], r.identity.protocol.split("/")[0], seed, layer)
        for r in read_records(workspace, "evaluation")
        for seed, layer in [(r.identity.config["seed"], r.identity.layer)]
    ]
    assert sorted(done) == [
        ("alexnet", "knn", 3, "conv1"),
        ("alexnet", "knn", 4, "conv1"),
        ("alexnet", "linear", 3, "pool5"),
        ("dcgan", "knn", 4, "bottleneck"),
        ("dcgan", "knn", 4, "conv2"),
    ]


def test_what_is_finished_is_taken_and_nothing_computed(bench, workspace, tmp_path):
    path = tmp_path / "rows.toml"
    path.write_text(ROWS)
    words = (path, "--workspace", workspace, "--workers", 0, "--finished")
    fails(bench("run", *words), 1, "of suite rows there is no number")
    first = ROWS.replace("seeds = [3, 4]", "seeds = [4]", 1).replace("\nseeds = [3]\n", "\n")
    (tmp_path / "first.toml").write_text(first)
    made = bench("run", tmp_path / "first.toml", "--workspace", workspace, "--workers", 0)
    assert made.code == 0, made.err
    before = {r.key for r in read_records(workspace)}
    part = bench("run", *words)
    assert part.code == 0, part.err
    assert "knn" in part.out
    assert "linear/logreg" not in part.out  # measured of seed 4, but the suite asks for seed 3's
    assert {r.key for r in read_records(workspace)} == before
    out = tmp_path / "out"
    assert bench("export", *words, "--out", out).code == 0
    assert (out / "table.md").read_text() == part.out
    assert bench("verify", out).code == 0


SHARED = """
name = "shared"
data = "scenes:train=60,test=20"
seeds = [0, 1]
controls = false
[encoder]
image_size = 64
width = 0.1
[[pretrain]]
method = "random"
[[evaluate]]
evaluation = "linear-probe"
layers = ["conv3"]
strengths = 2
seeds = [0]
[[evaluate]]
evaluation = "knn"
layers = ["conv4"]
k = [3]
"""


@pytest.fixture
def shared(tmp_path):
    path = tmp_path / "shared.toml"
    path.write_text(SHARED)
    return path


def test_evaluations_of_fewer_seeds_come_last(shared):
    """A suite that is cut short has whole columns."""
    done = [(s.seed, e.evaluation) for s in read_suite(str(shared)).plan for e, _ in s.requests]
    assert done == [(0, "knn"), (1, "knn"), (0, "linear-probe")]


def test_what_another_process_is_at_is_done_last(shared, bench, workspace):
    """Everything else is made meanwhile; then the suite says for what it waits."""
    asked = read_suite(str(shared))
    config = pretrain_config(asked, asked.methods[0], 0)
    run = Pretraining.of("random", config, asked.data, workspace, Runtime(workers=0)).run
    words = [sys.executable, "-m", "ssl_bench", "run", shared, "--workspace", workspace]
    with run.working():
        process = subprocess.Popen([*words, "--workers", "0"], stderr=PIPE, stdout=PIPE, text=True)
        assert process.stderr is not None
        said = list[str]()
        for line in process.stderr:
            said.append(line)
            if "waiting for another process" in line:
                break
        else:
            pytest.fail("it did not wait: " + "".join(said))
        made = read_records(workspace, "evaluation")
        assert [(r.pretraining["seed"], r.identity.layer) for r in made] == [(1, "conv4")]
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert len(read_records(workspace, "evaluation")) == 3
    assert out == bench("run", shared, "--workspace", workspace, "--workers", 0).out


def test_a_number_that_is_asked_for_twice_is_one(shared, bench, workspace):
    again = '[[evaluate]]\nevaluation = "knn"\nlayers = ["conv4"]\nk = [3]\nseeds = [0]\n'
    words = ("--workspace", workspace, "--workers", 0)
    once = bench("run", shared, *words)
    assert once.code == 0, once.err
    shared.write_text(SHARED + again)
    assert bench("run", shared, *words).out == once.out


# ---- rows that have no number
DIVERGES = """
name = "toy"
data = "scenes:train=60,test=20"
controls = false

[encoder]
image_size = 64
width = 0.1

[[pretrain]]
method = "autoencoder"
steps = 8
batch_size = 4
lr = 1e30
keep-at = [6]

[[pretrain]]
method = "random"

[[evaluate]]
evaluation = "knn"
layers = ["conv4"]
k = [3, 5]
"""


def test_a_row_that_diverges_does_not_end_the_suite(bench, workspace, tmp_path):
    """It is trained once, not for each of its steps; the table has the others, the code says it."""
    path = tmp_path / "diverges.toml"
    path.write_text(DIVERGES)
    made = bench("run", path, "--workspace", workspace, "--workers", 0)
    assert made.code == 1
    assert "| random" in made.out
    *_, heading, first, second, _ = made.err.splitlines()
    assert heading == "bench: 2 faults in toy:"
    assert first.startswith("  autoencoder at step 6, seed 0: knn: loss is ")
    assert second.startswith("  autoencoder, seed 0: knn: loss is ")
    assert made.err.count("the others go on") == 2
    again = bench("run", path, "--workspace", workspace, "--workers", 0)
    assert (again.code, again.out) == (1, made.out)
    export = bench("export", path, "--workspace", workspace, "--out", tmp_path / "o")
    assert export.code == 1
    assert not (tmp_path / "o").exists()
    bench.ok("export", path, "--workspace", workspace, "--out", tmp_path / "o", "--finished")
