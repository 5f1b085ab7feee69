"""The command line: what it answers, and calls that must succeed."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ssl_bench.cli.main import main


@dataclass(frozen=True)
class Result:
    """What one command line answered."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Bench:
    """`bench("table", "--workspace", folder)`: what the command line answers."""

    run: Callable[..., Result]

    def __call__(self, *words: object) -> Result:
        return self.run(*words)

    def ok(self, *words: object) -> Result:
        """Of a command that must succeed."""
        result = self.run(*words)
        assert result.code == 0, result
        return result


DATA = "scenes:train=60,test=20"
TOY = ("--image-size", 64, "--width", 0.1, "--workers", 0, "--data", DATA)


def call(*words: object) -> None:
    """`bench WORD …` for fixtures of a whole module; must succeed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bench", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert stopped.value.code == 0


# What a shell may hold: of other jobs, and of salloc, within which srun has started nothing.
LEFT_OVER = {
    "WORLD_SIZE": "4", "LOCAL_RANK": "3", "NODE_RANK": "1", "MASTER_PORT": "1",
    "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "bash", "SLURM_NTASKS": "2", "SLURM_NNODES": "2",
    "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
}  # fmt: skip


def overriding(words: tuple[object, ...], *own: object) -> list[object]:
    """A command's words with other values of some options, which may be given once only."""
    pairs = zip(words, (None, *words), strict=False)
    return [word for word, before in pairs if not {word, before} & {*own[::2]}] + [*own]


def launched(arguments: list[str]) -> str:
    """What the command prints; it starts another process of itself, in a shell of a past job."""
    call = [str(Path(sys.executable).with_name("bench")), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **LEFT_OVER}
    done = subprocess.run(call, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
