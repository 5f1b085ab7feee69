"""The README's Python runs as it stands, beside a workspace of its quickstart's kind."""

import runpy
from pathlib import Path

import pandas as pd

from helpers.bench import TOY, Bench
from helpers.photos import draw_photo
from helpers.places import ROOT


def test_the_python_of_the_readme(bench: Bench, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    steps = ("--steps", 2, "--batch-size", 4)
    bench.ok("pretrain", "context-encoder", *TOY, *steps)
    data = TOY[TOY.index("--data") :]
    layers = ("--layer", "conv3", "--layer", "conv5")
    bench.ok("knn", "--encoder", "context-encoder", *layers, *data, "--workers", 0)
    draw_photo(0).save("photo.jpg")
    readme = (ROOT / "README.md").read_text().split("<!-- python -->\n```python\n")[1]
    Path("readme.py").write_text(readme.split("```")[0])
    found = runpy.run_path("readme.py")
    maps = {layer: tuple(each.shape) for layer, each in found["features"].items()}
    assert [*maps] == ["conv3", "conv5"]
    assert all(shape[0] == 1 and len(shape) == 4 for shape in maps.values())
    frame = found["frame"]
    assert isinstance(frame, pd.DataFrame)
    assert {*frame.layer} == {"conv3", "conv5"}
