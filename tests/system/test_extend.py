"""A third party's package, docs/example: installed, it stands beside the built-in methods."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import normalize

from helpers.example import EXAMPLE, forget
from helpers.refusals import fails
from ssl_bench import catalogue
from ssl_bench.evaluation.features import Features
from ssl_bench.evaluation.rows import Rows
from ssl_bench.records.workspace import read_records

DATA = ["--data", "scenes:train=60,test=20"]
SMALL = ["--image-size", "64", "--width", "0.1", "--init", "fan-in"]


@pytest.fixture
def workspace(installed, bench, tmp_path):
    """A run of the third party's pretext and one of random weights, measured by both."""
    where = [*DATA, "--workspace", str(tmp_path / "runs"), "--workers", "0"]
    for words in (["upside-down", "--steps", "3", "--batch-size", "8"], ["random"]):
        bench.ok("pretrain", *words, *SMALL, *where)
    for words in (["class-mean"], ["linear-probe", "--strengths", "3"]):
        bench.ok(*words, "--layer", "conv3", *where)
    return tmp_path / "runs"


def test_each_is_one_short_file():
    most = {"upside_down": 60, "class_mean": 60, "simclr": 90}
    for name, lines in most.items():
        file = EXAMPLE / "ssl_bench_example" / f"{name}.py"
        assert len(file.read_text().splitlines()) < lines, name


def test_they_are_listed_like_the_built_in_ones(installed, bench):
    assert "Upside down: tell whether an image stands" in bench("pretrain", "--help").out
    assert "Class means: the class whose mean" in bench("--help").out
    assert "class-mean/mensink13@1" in bench("protocols").out
    assert "Mensink et al." in bench("protocols", "show", "class-mean/mensink13").out


def test_their_rows_and_columns_stand_in_the_table(workspace, bench, tmp_path):
    table = bench("table", "--workspace", workspace).out
    columns = table.splitlines()[0]
    assert "class-mean/mensink13@1 conv3" in columns
    assert "linear/logreg@1 strengths=3 conv3" in columns
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    assert rows[1:3] == ["random", "upside-down"]
    assert "upside-down − random" in table
    compared = bench.ok("compare", "upside-down", "random", "--workspace", workspace)
    assert "class-mean/mensink13@1 conv3" in compared.out
    page = tmp_path / "report.html"
    bench.ok("report", "--workspace", workspace, "--out", page)
    assert "class-mean/mensink13@1" in page.read_text()


def test_their_numbers_are_verified(workspace, bench):
    bench.ok("verify", workspace)
    record = next(
        r for r in read_records(workspace, "evaluation")
        if r.method == "upside-down" and r.identity.protocol.startswith("class-mean")
    )  # fmt: skip
    (path,) = workspace.glob(f"evaluation/*-{record.key[:12]}/record.json")
    claimed = f'"top1": {record.metrics["top1"]}'
    text = path.read_text()
    assert claimed in text
    path.write_text(text.replace(claimed, '"top1": 99.5'))
    made = bench("verify", workspace)
    assert made.code == 1
    assert "top1 is 99.5 in the record" in made.out + made.err


def test_a_suite_names_them(installed, bench, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\ndata = "scenes:train=60,test=20"\n'
        '[encoder]\nimage_size = 64\nwidth = 0.1\ninit = "fan-in"\n'
        '[[pretrain]]\nmethod = "upside-down"\nsteps = 2\nbatch_size = 4\n'
        '[[evaluate]]\nevaluation = "class-mean"\nlayers = ["conv2", "pool5"]\n'
    )
    made = bench.ok("run", path, "--workspace", tmp_path / "runs", "--workers", 0)
    assert "| upside-down" in made.out
    assert "Control, shuffled training labels, class-mean/mensink13@1" in made.out


def test_without_the_package_its_names_are_unknown_and_its_numbers_still_shown(
    workspace, bench, monkeypatch
):
    monkeypatch.undo()
    forget()
    fails(bench("pretrain", "upside-down"), 2, "upside-down")
    table = bench.ok("table", "--workspace", workspace)
    assert "| upside-down" in table.out


def features(rows, labels):
    """Features of images of four classes."""
    return Features(Rows.of(torch.from_numpy(rows).float()), labels, ("a", "b", "c", "d"))


def test_class_means_are_scikit_learns(installed):
    """On features of length 1; class 1 of the set has no training image."""
    random = np.random.default_rng(0)
    labels = random.choice([0, 2, 3], 60)
    train, test = (random.normal(size=(n, 7)) + 2 * np.eye(7)[la] for n, la in
                   ((60, labels), (40, random.choice([0, 2, 3], 40))))  # fmt: skip
    oracle = NearestCentroid().fit(normalize(train), labels).predict(normalize(test))
    probe = catalogue.load("eval", "class-mean")
    found = probe(probe.Config()).probe(
        "conv1", {"train": features(train, labels), "test": features(test, np.zeros(40, np.int64))}
    )
    assert len(set(oracle)) == 3
    np.testing.assert_array_equal(found.predictions["predicted"], oracle)
