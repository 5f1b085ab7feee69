"""`bench export-mteb`: a model that MTEB's own mock tasks of images take."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ssl_bench
from helpers.photos import draw_photo
from helpers.refusals import fails


@pytest.fixture
def written(finished, bench, tmp_path, monkeypatch) -> Path:
    """A module that can be imported, of a run's AlexNet at pool5."""
    out = tmp_path / "models" / "alexnet_random.py"
    done = bench.ok("export-mteb", "random", "--out", out, "--workspace", finished)
    assert "from alexnet_random import model" in done.out
    monkeypatch.syspath_prepend(out.parent)
    return out


def test_the_file_is_python_and_its_weights_are_the_encoders(written, finished):
    compile(written.read_text(), "alexnet_random.py", "exec")
    images = torch.randn(2, 3, 64, 64)
    found = ssl_bench.load_encoder(written.with_suffix(".safetensors")).encode(images)
    own = ssl_bench.load_encoder("random", finished).encode(images)
    assert torch.equal(found["pool5"], own["pool5"])


@pytest.mark.filterwarnings("ignore")  # of what MTEB imports
def test_mteb_runs_its_mock_tasks_of_images(written, finished, monkeypatch):
    mteb: Any = pytest.importorskip("mteb", reason="pip install mteb to run this")
    model: Any = importlib.import_module(written.stem).model
    photos = [draw_photo(i) for i in range(3)]
    own = ssl_bench.load_encoder("random", finished)
    maps = own.encode(torch.stack([own.transform(photo) for photo in photos]))["pool5"]
    assert np.array_equal(model.encode([{"image": photos}]), maps.mean((2, 3)).numpy())
    results = mteb.mock_run(model)
    ran = [name for name, status in results.items() if status is not None]
    assert results.all_passed, results.to_markdown()
    assert "MockImageClassification" in ran
    assert "MockImageClustering" in ran


@pytest.mark.parametrize("name", ["model.txt", "my-model.py", "3d.py"])
def test_a_name_that_no_module_can_have_is_refused(name, finished, bench, tmp_path):
    words = ("export-mteb", "random", "--out", tmp_path / name, "--workspace", finished)
    fails(bench(*words), 2, "--out takes NAME.py")
    assert not [*tmp_path.glob("*.safetensors")]
