"""Fixtures of evaluations' tests."""

import pytest


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time at toy size."""
    monkeypatch.setattr("ssl_bench.pictures.plots.picture_grid", lambda *_: None)
