"""The house: packages side by side, quick help, pins that name no place."""

import ast
import re
import subprocess
import sys
from collections import Counter

import pytest

from helpers.places import ROOT
from ssl_bench import catalogue
from ssl_bench.errors import UsageError


def python(code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("words", [["--help"], ["pretrain", "--help"], ["run", "--help"]])
def test_help_does_not_import_torch(words):
    code = (
        "import sys; from ssl_bench.cli import cli\n"
        f"cli.main({words!r}, standalone_mode=False)\n"
        "print('loaded:', [m for m in ('torch', 'numpy', 'pandas') if m in sys.modules])"
    )
    assert python(code).splitlines()[-1] == "loaded: []"


def test_help_names_every_registered_method():
    out = python("from ssl_bench.cli import cli; cli.main(['pretrain', '--help'])")
    assert all(name in out for name in ("context-encoder", "autoencoder", "random"))
    top = python("from ssl_bench.cli import cli; cli.main(['--help'])")
    assert all(name.partition(".")[0] in top for name in catalogue.names("eval"))


def test_the_three_packages_lie_side_by_side():
    catalogue.check_layout()


def test_no_two_classes_share_a_name():
    """A class is found by its name, wherever one meets it."""
    files = [
        f for package in ("ssl_bench", "pretext", "eval") for f in (ROOT / package).rglob("*.py")
    ]
    names = Counter(
        node.name
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_an_intruder_is_named(monkeypatch, tmp_path):
    (tmp_path / "pretext").mkdir()
    (tmp_path / "pretext" / "__init__.py").write_text("")
    for name in [m for m in sys.modules if m == "pretext" or m.startswith("pretext.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match=r"the package 'pretext' is .*, not the one beside"):
        catalogue.check_layout()


def test_constraints_hold_names_and_versions_only():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in pins)


def test_every_method_has_a_summary_and_documented_settings():
    for name in catalogue.names("pretext"):
        assert catalogue.summary("pretext", name)
        for field in catalogue.pretext(name).Config.model_fields.values():
            assert field.description
    for name in catalogue.names("eval"):
        assert catalogue.summary("eval", name)
        for field in catalogue.evaluation(name).Config.model_fields.values():
            assert field.description
