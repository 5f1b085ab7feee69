"""A third party's package, docs/example, as pip installs it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.example import EXAMPLE, forget


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built by its own backend and without a network."""
    target = tmp_path_factory.mktemp("site")
    source = target / "source"  # a build leaves nothing in the checkout
    for path in EXAMPLE.rglob("*"):
        if path.suffix in (".py", ".toml"):
            copy = source / path.relative_to(EXAMPLE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target"]
    made = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, str(target / "installed"), str(source)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return target / "installed"


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Its methods can be found; `monkeypatch.undo()` takes it away."""
    monkeypatch.syspath_prepend(str(site))
    forget()
    yield
    monkeypatch.undo()
    forget()
    for name in [n for n in sys.modules if n.startswith("ssl_bench_example")]:
        del sys.modules[name]
