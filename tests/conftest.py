"""What all tests share: a cache of their own, the command line in process, small photographs."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.bench import Bench, Result
from helpers.photos import CLASSES, COUNTS, draw_photo


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
    from ssl_bench.cli.main import main

    def run(*words: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        code = stopped.value.code
        assert isinstance(code, int)
        said = capfd.readouterr()
        return Result(code, said.out, said.err)

    return Bench(run)


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
    bench.ok(*command, "--workspace", workspace)
    return workspace
