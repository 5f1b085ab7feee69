"""`ssl_bench.load_encoder`: the pixels and features of evaluations, outside of them."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import ssl_bench
from helpers.places import ROOT
from ssl_bench import catalogue
from ssl_bench.data.store.squares import open_store
from ssl_bench.encoders.weights import load_encoder as read_weights
from ssl_bench.errors import UsageError
from ssl_bench.training.augment import center_crop


def test_it_sees_what_evaluations_see_and_gives_what_they_measure(finished, tiny_photos):
    encoder = ssl_bench.load_encoder("random", finished)
    store = open_store(catalogue.dataset(f"folder:{tiny_photos}"), "test", 64, workers=0)
    pixels = encoder.spec.normalization.apply(center_crop(store.images(slice(0, 4)), 64))
    paths = [tiny_photos / "val" / name for name in store.index.names[:4]]
    seen = torch.stack([encoder.transform(Image.open(path)) for path in paths])
    assert seen.dtype == torch.float32
    assert torch.equal(seen, pixels)
    weights = next(finished.glob("pretrain/*/encoder.safetensors"))
    own, _ = read_weights(weights)
    with torch.no_grad():
        expected = own.eval()(seen, ["conv3", "pool5"])
    found = encoder.encode(seen, ["conv3", "pool5"])
    assert all(torch.equal(found[layer], expected[layer]) for layer in expected)
    assert [*encoder.encode(seen)] == ["pool5"]


@pytest.mark.parametrize("turn", [3, 6, 8])
def test_photographs_are_turned_as_exif_says(turn, finished, tmp_path):
    """A phone's upright photograph lies on its side in the file."""
    quarters = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90,
                8: Image.Transpose.ROTATE_270}  # fmt: skip
    plain = Image.effect_mandelbrot((96, 80), (-2, -1.5, 1, 1.5), 60)
    exif = Image.Exif()
    exif[0x0112] = turn
    plain.transpose(quarters[turn]).save(tmp_path / "turned.png", exif=exif)
    encoder = ssl_bench.load_encoder("random", finished)
    found = encoder.transform(Image.open(tmp_path / "turned.png"))
    assert torch.equal(found, encoder.transform(plain))


def test_it_is_a_module_that_can_be_trained_and_encode_leaves_it_alone(finished):
    encoder = ssl_bench.load_encoder("random", finished)
    assert isinstance(encoder, torch.nn.Module)
    encoder.train()
    images = torch.randn(2, 3, 64, 64)
    encoder(images)["pool5"].sum().backward()
    assert all(weight.grad is not None for weight in encoder.parameters())
    assert not encoder.encode(images)["pool5"].requires_grad
    assert encoder.encoder.training
    with pytest.raises(UsageError, match="unknown layer 'conv9'"):
        encoder.encode(images, ["conv9"])


def test_every_reference_is_taken(finished, tmp_path):
    weights = next(finished.glob("pretrain/*/encoder.safetensors"))
    by_run = ssl_bench.load_encoder("random", finished)
    images = torch.randn(1, 3, 64, 64)
    for reference in (weights, weights.parent, str(weights)):
        found = ssl_bench.load_encoder(reference).encode(images)["pool5"]
        assert torch.equal(found, by_run.encode(images)["pool5"])
    (tmp_path / "net.py").write_text(
        "from ssl_bench.encoders.alexnet import AlexNet\ndef build(): return AlexNet(0.1)\n"
    )
    own = ssl_bench.load_encoder(
        f"file:{tmp_path / 'net.py'}:build", weights=weights, image_size=64
    )
    assert torch.equal(own.encode(images)["pool5"], by_run.encode(images)["pool5"])


def test_the_example_of_the_docs_retrieves(finished, tiny_photos, monkeypatch):
    """As it is written, with a folder of photographs: an image is nearest to itself."""
    page = (ROOT / "docs/take-away.md").read_text()
    (code,) = [b for b in re.findall(r"```python\n(.*?)```", page, re.S) if "topk" in b]
    assert len(code.strip().splitlines()) <= 15
    monkeypatch.chdir(finished.parent)
    query = sorted((tiny_photos / "val").rglob("*.jpg"))[1]
    Path("query.jpg").write_bytes(query.read_bytes())
    names: dict[str, Any] = {}
    exec(compile(code, "docs/take-away.md", "exec"), names)
    first = names["paths"][int(names["nearest"][0])]
    assert first.read_bytes() == query.read_bytes()
