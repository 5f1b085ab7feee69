"""How long commands take that compute nothing, against importing click.

    python tests/perf/startup.py                       # 9 repetitions
    python tests/perf/startup.py 9 quickstart runs     # and of a suite that is finished there

Processes are timed in turn, so that a busy machine does not make the ratio; the median of the
ratios is printed, and of the seconds. The records are those of results/quickstart.
"""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
CLICK = ["-c", "import click"]
PLACE = ["--workspace", str(ROOT / "results/quickstart")]
READING = [
    ["--help"], ["--version"], ["runs", *PLACE], ["table", *PLACE], ["protocols"],
    ["compare", "context-encoder", "random", *PLACE], ["data", "list"],
]  # fmt: skip
AIMS = {"--help": "≤ 5 × import click", "run": "< 3 s"}


def lines(repetitions: int = 9, suite: str = "", workspace: str = "runs") -> Iterator[str]:
    """The report, line by line as it is known."""
    yield f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    finished = [["run", suite, "--workspace", workspace]] if suite else []
    for words in [*READING, *finished]:
        command = ["-m", "ssl_bench", *words]
        pairs = [(seconds(command), seconds(CLICK)) for _ in range(repetitions)]
        ratio = median(ours / click for ours, click in pairs)
        took, aim = median(ours for ours, _ in pairs), AIMS.get(words[0], "< 1 s")
        yield f"bench {words[0]}: {ratio:.1f} × import click, {took:.2f} s; aim: {aim}"


def seconds(words: list[str]) -> float:
    """Of a Python process, from its start to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True, cwd=ROOT)
    return time.perf_counter() - started


if __name__ == "__main__":
    repetitions, *rest = sys.argv[1:] or ["9"]
    for line in lines(int(repetitions), *rest):
        print(line, flush=True)
