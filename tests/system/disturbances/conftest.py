"""A suite, its workspace, table and export, undisturbed; processes that are started and stopped."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from helpers.disturbances import (
    CONTEXT,
    OTHER,
    PRELOADED,
    SUITE,
    Hook,
    Running,
    done,
    stop_at,
    until,
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Every process adds up in the same order, and none of them waits by turning."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("OMP_WAIT_POLICY", "PASSIVE")
        CONTEXT.set_forkserver_preload(PRELOADED)
        yield


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """`start("table", at="ssl_bench.tables.table.Table.of")`: stopped where it first gets there."""
    started: list[Running] = []

    def begin(*words: object, hooks: Sequence[Hook] = (), at: str | None = None) -> Running:
        flag = tmp_path / f"stopped-{len(started)}"
        stop = [partial(stop_at, at, flag)] if at else []
        started.append(Running(words, [*hooks, *stop]))
        started[-1].flag = flag
        if at:
            until(lambda: flag.exists() or not started[-1].alive)
            assert flag.exists(), started[-1].result()
        return started[-1]

    yield begin
    for each in started:
        each.kill()


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suites") / "toy.toml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="session")
def other(suite: Path) -> Path:
    path = suite.with_name("other.toml")
    path.write_text(OTHER)
    return path


@pytest.fixture(scope="session")
def whole(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite's workspace, undisturbed; tests leave it as it is."""
    workspace = tmp_path_factory.mktemp("whole") / "runs"
    done("run", suite, "--workers", "0", "--workspace", workspace)
    return workspace


@pytest.fixture(scope="session")
def printed(suite: Path, whole: Path) -> str:
    """The suite's table."""
    return done("run", suite, "--workers", "0", "--workspace", whole).out


@pytest.fixture(scope="session")
def exported(suite: Path, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "toy"
    done("export", suite, "--out", out, "--workers", "0", "--workspace", whole)
    return out


@pytest.fixture
def copy(whole: Path, workspace: Path) -> Path:
    """The finished workspace, to be spoilt."""
    shutil.copytree(whole, workspace)
    return workspace


@pytest.fixture
def run(suite: Path, workspace: Path) -> tuple[object, ...]:
    """The suite in a workspace of the test."""
    return ("run", suite, "--workers", "0", "--workspace", workspace, "--checkpoint-every", "2")
