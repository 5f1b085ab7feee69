"""A workspace that version 0.1.0 wrote: its records are read as they were."""

import json
import re

import pytest

import ssl_bench
from helpers.places import ROOT
from ssl_bench.records.workspace import predictions_of, read_records

OLD = ROOT / "tests" / "records" / "workspace-0.1.0"


def test_a_table_is_made_of_its_records(bench):
    answer = bench.ok("table", "--workspace", OLD)
    assert "| autoencoder − random" in answer.out.replace("\\", "")
    for record in read_records(OLD, "evaluation"):
        assert f"{record.metrics['top1']:.1f}" in answer.out


def test_it_is_verified(bench):
    answer = bench("verify", OLD)
    assert answer.out == ""
    assert answer.code == 0


def test_its_methods_are_compared(bench):
    answer = bench.ok("compare", "autoencoder", "random", "--workspace", OLD)
    assert re.search(r"^knn/dinov2@1 k=1,3 conv3 .* top1, ", answer.out, re.MULTILINE)


@pytest.mark.parametrize("path", sorted(OLD.glob("*/*/record.json")), ids=lambda p: p.parent.name)
def test_a_record_is_shown_with_all_that_it_says(bench, path):
    content = json.loads(path.read_text())
    answer = bench.ok("show", content["key"], "--workspace", OLD)
    assert answer.out.startswith(f"{content['kind']} {content['key']}\nmade again by: bench ")
    for name in (*content["identity"], *content["details"]):
        assert f"  {name}" in answer.out


def test_its_numbers_are_loaded():
    frame = ssl_bench.load_records(OLD)
    assert set(frame["method"]) == {"autoencoder", "random"}
    assert len(predictions_of(read_records(OLD, "evaluation")[0], OLD)["label"]) == 20
