"""A third party's pretext joins by an entry point: the one that docs/extend.md shows."""

import re
from pathlib import Path

import pytest

from ssl_bench import catalogue

PAGE = Path(__file__).parent.parent / "docs" / "extend.md"


@pytest.fixture
def rotation(tmp_path, monkeypatch):
    """The page's code, installed as a package of its own."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    package = tmp_path / "site"
    info = package / "rotation_pretext-1.0.dist-info"
    info.mkdir(parents=True)
    (package / "rotation_pretext.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rotation-pretext\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[ssl_bench.pretext]\nrotation = rotation_pretext:Rotation\n"
    )
    monkeypatch.syspath_prepend(str(package))
    catalogue._found.cache_clear()
    yield code
    catalogue._found.cache_clear()


def test_the_pages_pretext_is_short_and_works_like_the_built_in_ones(rotation, bench, tmp_path):
    assert len(rotation.splitlines()) < 60
    assert "Rotation: predict by which quarter turn" in bench("pretrain", "--help").out
    where = ["--workspace", str(tmp_path / "runs"), "--data", "scenes:train=60,test=20"]
    small = ["--image-size", "64", "--width", "0.1", "--init", "fan-in"]
    made = bench("pretrain", "rotation", *small, "--steps", "3", "--batch-size", "8", *where)
    assert made.code == 0, made.err
    probe = bench("linear-probe", "--layer", "conv3", "--strengths", "3", *where)
    assert probe.code == 0, probe.err
    assert "| rotation" in probe.out
