"""Where we keep things: without a home, and with a variable that is empty or has a tilde."""

import os
import pwd
from pathlib import Path

import pytest

from helpers.bench import Bench
from helpers.refusals import fails
from ssl_bench.data.paths import own_folder, stamp
from ssl_bench.data.store.cache import cache_folder
from ssl_bench.data.torchvision_sets import SETS
from ssl_bench.data.voc.official import data_folder

VARIABLES = {"SSL_BENCH_CACHE": cache_folder, "SSL_BENCH_DATA": data_folder}


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user of a container: no HOME, and no entry among the users."""
    monkeypatch.delenv("HOME", raising=False)

    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_variable_counts_unless_it_is_empty(
    variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    named = {"SSL_BENCH_CACHE": "ssl-bench", "SSL_BENCH_DATA": "ssl-bench-data"}[variable]
    for given, expected in [("", tmp_path / ".cache" / named), ("~/x", tmp_path / "x"),
                            ("/a/b", Path("/a/b"))]:  # fmt: skip
        monkeypatch.setenv(variable, given)
        assert VARIABLES[variable]() == expected
    monkeypatch.delenv(variable)
    assert VARIABLES[variable]() == tmp_path / ".cache" / named


def test_without_a_home_a_variable_is_enough(
    homeless: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_BENCH_CACHE", "/a/b")
    assert own_folder("SSL_BENCH_CACHE", "ssl-bench") == Path("/a/b")


@pytest.mark.parametrize("given", ["", "~/x"])
def test_without_a_home_the_variable_is_named(
    homeless: None, monkeypatch: pytest.MonkeyPatch, bench: Bench, given: str
) -> None:
    monkeypatch.setenv("SSL_BENCH_CACHE", given)
    made = bench("pretrain", "random", "--data", "scenes:train=2,test=2", "--image-size", 64)
    fails(made, 1, "there is no home folder: let SSL_BENCH_CACHE name a folder")
    monkeypatch.setenv("SSL_BENCH_DATA", given)
    assert bench("data", "list").out.count("let SSL_BENCH_DATA name a folder") == 3 + len(SETS)


def test_a_stamp_tells_two_files_of_one_size_and_moment_apart(tmp_path: Path) -> None:
    """A link that leads to another file now; the inode's time cannot be set, so it may differ."""
    link = tmp_path / "link"
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"12345678")
        os.utime(tmp_path / name, (10**9, 10**9))
    link.symlink_to("a")
    first = stamp(link)
    link.unlink()
    link.symlink_to("b")
    second = stamp(link)
    assert first is not None
    assert second is not None
    assert first[:2] == second[:2]
    assert first[3] != second[3]
