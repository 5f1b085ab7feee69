"""What a suite names leads nowhere, and no package is imported for it."""

import importlib
from pathlib import Path

import pytest

from helpers.bench import Bench, Result
from helpers.hostile import answered, refused, snapshot
from helpers.suites import SUITE
from helpers.voc_folders import make_year


def run_suite(bench: Bench, work: Path, old: str, new: str, suite: str = SUITE) -> Result:
    """Run a suite with one change, on the workspace that has its runs."""
    assert old in suite
    (work / "hostile.toml").write_text(suite.replace(old, new, 1), encoding="utf-8")
    return bench("run", "hostile.toml", "--workers", 0, "--workspace", "runs")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"mini"', "[" * 100_000),
        ('"mini"', "{a=" * 100_000),
        ('"mini"', '"mini"\nseeds = [1' + "0" * 5000 + "]"),
        ('"mini"', '"mini"\nseeds = [1' + "0" * 400 + "]"),
        ('"mini"', '"mini"\nname = "twice"'),
        ('"mini"', '"\\ud800"'),
        ("0.1", "nan"),
        ("[1, 3]", "[1, 3]\nseed = 5"),
        ("[1, 3]", '[1, 3]\n"a\\nbench: b" = 5'),
        ("[1, 3]", '[1, 3]\nlayers = ["a\\nbench: b"]'),
    ],
    ids=["lists", "tables", "digits", "number", "twice", "half", "nan", "seed", "key", "layer"],
)
def test_a_hostile_suite_is_named(bench: Bench, work: Path, old: str, new: str) -> None:
    result = run_suite(bench, work, old, new)
    refused(result)
    assert result.code == 2
    assert len(result.err.splitlines()) == 1


STRANGE = ["../../x", "/etc/passwd", "a\\u0000b", "a\\nbench: b", "\\u001b]0;x\\u0007", "x" * 3000]


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("field", ['"random"', '"knn"', '"scenes:train=60,test=20"', '"mini"'])
def test_a_name_in_a_suite_leads_nowhere(bench: Bench, work: Path, field: str, name: str) -> None:
    before = snapshot(work.parent)
    inside = {path.relative_to(work) for path in work.rglob("*")}
    result = run_suite(bench, work, field, f'"{name}"')
    answered(result)
    assert result.code == (0 if field == '"mini"' else 2)  # a suite's own name is nothing's
    assert snapshot(work.parent) == before
    made = {path.relative_to(work) for path in work.rglob("*")} - inside
    assert made == {Path("hostile.toml")}


SETS = [
    "folder:a\\u0000b", "voc:a\\u0000b", "folder:a\\nbench: b", "voc:a\\nbench: b",
    "folder:~nobody-at-all/x", "folder:" + "x" * 5000, "scenes:train=²",
    "scenes:seed=1" + "0" * 5000,
    "voc:{year},name=../../x", "voc:{year},name=/x", "voc:{year},train=../../x",
    "voc:{year},train=a\\u0000b",
]  # fmt: skip


FOREIGN = """
name = "foreign"
data = "scenes:train=60,test=20"
[[external]]
encoder = "alexnet"
weights = "nowhere"
image_size = 64
[[evaluate]]
evaluation = "knn"
k = [1, 3]
"""
FILES = [
    "../../outside/precious.txt", "/etc/passwd", "a\\u0000b", "a\\nbench: b", "x" * 5000,
    "~nobody-at-all/x", "package:", "package:.x", "package:..x", "package:nowhere.at.all",
    "package:a\\u0000b",
]  # fmt: skip


PLACES = [(SUITE, "scenes:train=60,test=20", name) for name in SETS]
PLACES += [(FOREIGN, '"nowhere"', f'"{name}"') for name in FILES]
WHOLE = '"alexnet"\nweights = "nowhere"\nimage_size = 64'
PLACES += [(FOREIGN, WHOLE, f'"{name}"') for name in FILES]
PLACES += [
    (FOREIGN, WHOLE, f'"{name}"')
    for name in ("hf:~nobody-at-all/x", "hf:", "onnx:~nobody-at-all/x", "onnx:/etc/passwd",
                 "onnx:a\\u0000b", "hub:/etc:x", "file:/etc/passwd:x")
]  # fmt: skip


@pytest.mark.parametrize(("suite", "old", "new"), PLACES)
def test_a_set_or_an_encoder_in_a_suite_leads_nowhere(bench, work, suite, old, new):
    new = new.replace("{year}", str(make_year(work / "VOC2007")))
    before = snapshot(work.parent)
    refused(run_suite(bench, work, old, new, suite))
    assert snapshot(work.parent) == before


def test_a_package_of_weights_is_not_imported(bench, work, monkeypatch):
    mark, package = work / "ran", work / "packages" / "hostile_weights"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(package.parent)
    for name in ("hostile_weights", "hostile_weights.part"):
        refused(run_suite(bench, work, '"nowhere"', f'"package:{name}"', FOREIGN), name)
    assert not mark.exists()
    importlib.import_module("hostile_weights")  # it would have left its mark
    assert mark.exists()
