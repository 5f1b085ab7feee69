"""What all tests share: a cache of their own, the command line in process, small photographs."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CLASSES = ("ant", "bee", "cat")
COUNTS = {"train": 6, "val": 3}  # images per class


@dataclass(frozen=True)
class Result:
    """What one command line answered."""

    code: int
    out: str
    err: str


Bench = Callable[..., Result]


@pytest.fixture(scope="session", autouse=True)
def image_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Decoded images go to a temporary folder, never to the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_BENCH_CACHE", str(folder))
        yield folder


@pytest.fixture
def bench(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bench:
    """`bench("table", "--workspace", folder)`: the real command line, without a new process.

    Any exception but SystemExit passes through: for a user it would be a traceback.
    """
    from ssl_bench.cli import main

    def run(*words: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        code = stopped.value.code
        assert isinstance(code, int)
        said = capfd.readouterr()
        return Result(code, said.out, said.err)

    return run


def draw_photo(seed: int, width: int = 96, height: int = 80) -> Image.Image:
    """An RGB picture that no other seed gives: a gradient in three directions under noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    slopes = random.uniform(-1, 1, (2, 3))
    ramp = 128 + (x[..., None] - width / 2) * slopes[0] + (y[..., None] - height / 2) * slopes[1]
    pixels = ramp + random.normal(0, 20, (height, width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.fixture
def tiny_photos(tmp_path: Path) -> Path:
    """train/ and val/ of three classes, 96×80 px, PNG and JPEG in turn; a test may spoil it."""
    root = tmp_path / "photos"
    seed = 0
    for split, count in COUNTS.items():
        for name in CLASSES:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                draw_photo(seed).save(folder / (f"{i}.png" if i % 2 else f"{i}.jpg"))
                seed += 1
    return root


@pytest.fixture(scope="session")
def photos() -> Path:
    """A folder of real photographs; tests that use it carry `@pytest.mark.photos`."""
    given = os.environ.get("SSL_BENCH_DATA")
    if not given:
        pytest.skip("needs real photographs: set SSL_BENCH_DATA to a folder of them")
    folder = Path(given).expanduser()
    if not folder.is_dir():
        pytest.skip(f"SSL_BENCH_DATA is {given}, which is not a folder")
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def finished(workspace: Path, bench: Bench) -> Path:
    """A workspace with one finished run, and photographs' sizes in its encoder."""
    command = ("pretrain", "random", "--image-size", 64, "--width", 0.1, "--workers", 0)
    command += ("--data", "scenes:train=60,test=20")
    assert bench(*command, "--workspace", workspace).code == 0
    return workspace
