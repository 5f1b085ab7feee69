"""Export and import: the same numbers without weights, and nothing that verification refuses."""

import json
from pathlib import Path

import pytest
from refusals import fails

from ssl_bench.records import read_records

SUITE = """
name = "mini"
data = "scenes:train=60,test=20"
[encoder]
image_size = 64
width = 0.1
[[pretrain]]
method = "random"
[[evaluate]]
evaluation = "knn"
k = [1, 3]
"""


@pytest.fixture
def exported(bench, workspace: Path, tmp_path: Path) -> Path:
    suite, out = tmp_path / "mini.toml", tmp_path / "mini"
    suite.write_text(SUITE)
    result = bench("export", suite, "--out", out, "--workspace", workspace, "--workers", 0)
    assert result.code == 0, result.err
    return out


def test_an_export_is_read_back_as_it_was(bench, workspace: Path, exported: Path, tmp_path: Path):
    assert not list(exported.rglob("*.safetensors"))
    assert bench("verify", exported).code == 0
    other = tmp_path / "other"
    assert bench("import", exported, "--workspace", other).code == 0
    ours, theirs = (read_records(place) for place in (workspace, other))
    assert [r.model_dump() for r in ours] == [r.model_dump() for r in theirs]
    tables = [bench("table", "--workspace", place).out for place in (workspace, other)]
    assert tables[0] == tables[1] == (exported / "table.md").read_text()
    assert "0 runs" in bench("import", exported, "--workspace", other).out


def test_what_was_edited_is_not_imported(bench, exported: Path, tmp_path: Path):
    path = next(iter(exported.glob("evaluation/*/record.json")))
    record = json.loads(path.read_text())
    record["metrics"]["top1"] += 5
    path.write_text(json.dumps(record))
    other = tmp_path / "other"
    fails(bench("import", exported, "--workspace", other), 1, "nothing is imported", "top1")
    assert not other.exists()


def test_a_folder_with_other_things_is_left_alone(bench, workspace: Path, tmp_path: Path):
    suite, out = tmp_path / "mini.toml", tmp_path / "home"
    suite.write_text(SUITE)
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    place = ("--workspace", workspace, "--workers", 0)
    fails(bench("export", suite, "--out", out, *place), 1, "thesis.tex", "--out")
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]
