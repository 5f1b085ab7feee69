"""Pointers of Git LFS, which a clone without it leaves in the place of large files."""

from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.layouts import read_all
from ssl_bench.encoders.tensors import read_tensors
from ssl_bench.encoders.weights import load_encoder
from ssl_bench.errors import DataError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def by_set(name: str) -> Callable[[Path], None]:
    return lambda path: read_all(f"{name}:{path.parents[1]}", "classification")


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("net.pth", read_tensors),
        ("net.safetensors", read_tensors),
        ("net.safetensors", load_encoder),
        ("train/0.tar", by_set("wds")),
        ("train/0.parquet", by_set("hf")),
        ("train/0.arrow", by_set("hf")),
        ("train/0.jpg", by_set("folder")),
    ],
)
def test_a_pointer_is_named(name: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    if name.endswith((".parquet", ".arrow")):
        pytest.importorskip("pyarrow", reason="pip install 'ssl-bench[hf]' to run this")
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(POINTER)
    with pytest.raises(DataError, match=rf"{path.name} is a pointer of Git LFS.*git lfs pull"):
        read(path)
