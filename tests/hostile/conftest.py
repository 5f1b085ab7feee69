"""A workspace to spoil, what lies outside it, and a training that was stopped."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image

from helpers.bench import call
from helpers.interrupted import interrupted_at
from helpers.refusals import PRETRAIN, SCENES, only
from helpers.suites import SUITE
from ssl_bench.cli.main import main


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/ and mini/: a suite's workspace and its export; runs/ also has a network that fills."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "mini.toml").write_text(SUITE)
    place = ("--workspace", folder / "runs", "--workers", 0)
    call("export", folder / "mini.toml", "--out", folder / "mini", *place)
    short = ("--width", 0.05, "--bottleneck", 8, "--steps", 1, "--batch-size", 2)
    call("pretrain", "inpainting", *short, *SCENES, *place)
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What nothing may touch: a file and a picture, beside the folder that one works in."""
    folder = tmp_path / "outside"
    (folder / "folder").mkdir(parents=True)
    (folder / "precious.txt").write_text("precious\n")
    Image.new("RGB", (40, 40), (255, 0, 0)).save(folder / "secret.png")
    return folder


@pytest.fixture
def work(measured: Path, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that one works in: copies of runs/, mini/ and mini.toml, to spoil."""
    folder = Path(shutil.copytree(measured, tmp_path / "work"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def half_done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was stopped in its second step of four."""
    folder = tmp_path_factory.mktemp("half") / "runs"
    words = [*PRETRAIN, *SCENES, "--workspace", folder]
    with pytest.MonkeyPatch.context() as patch, interrupted_at(1):
        patch.setattr(sys, "argv", ["bench", *map(str, words)])
        with pytest.raises(SystemExit):
            main()
    return folder


@pytest.fixture
def stopped(half_done: Path, outside: Path, tmp_path: Path) -> Path:
    """Its folder in a copy of the workspace, to spoil."""
    runs = shutil.copytree(half_done, tmp_path / "work" / "runs")
    return only(Path(runs), "pretrain/context-*")


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `gs` that leaves a mark where it is started: Pillow reads EPS by it."""
    mark, program = tmp_path / "gs-ran", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch '{mark}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return mark
