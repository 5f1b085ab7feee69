"""Files made to harm: none is run, none leads outside, memory stays bounded, each is named.

Checkpoints, weights, predictions, records, suites and images as a stranger could send them, and how
they are refused. What merely is damaged stands in test_bad_images.py, test_bad_requests.py and
test_bad_runs.py.
"""

import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.bench import Bench, Result
from helpers.refusals import PRETRAIN, SCENES, fails, only
from helpers.spoilt import edit, rekeyed
from ssl_bench.errors import BenchError

Change = Callable[[Any], object]
RUNS = Path("runs")  # in the folder that one works in, which is the current one
BELL = "\x1b]0;x\x07"  # names the terminal's window and rings: nobody's name for anything
MARKUP = "</script></pre></details>\"'><img src=x onerror=alert(1)><script>alert(1)</script>"


def snapshot(folder: Path, but: str = "work") -> dict[str, bytes | str]:
    """Every file, folder and link below `folder`, with what it holds; `but` is left out."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.split("/")[0] == but:
            continue
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        else:
            found[name] = path.read_bytes() if path.is_file() else ""
    return found


def plain(text: str) -> None:
    """Nothing that steers a terminal."""
    strange = {c for c in text if unicodedata.category(c) == "Cc"} - {"\n"}
    assert not strange, f"{strange} in {text[:500]!r}"


def refused(result: Result, *parts: object) -> None:
    """A wrong request or bad data, in one line that has all parts."""
    assert result.code in (1, 2), result
    fails(result, result.code, *map(str, parts))
    plain(result.out + result.err)


def answered(result: Result, *parts: object) -> None:
    """The command did what it was asked for, or refused to and said of what."""
    if result.code:
        refused(result, *parts)


def told(result: Result, part: str) -> None:
    """As `answered`, or a comparison that found differences, which it prints."""
    if not (result.code == 1 and result.out.startswith(part)):
        answered(result)


def caught(job: Callable[[], object]) -> BenchError | None:
    """What a public function refuses with; None if it does not."""
    try:
        job()
    except BenchError as error:
        return error
    return None


def evaluation(runs: Path = RUNS) -> Path:
    """The folder of the number that is not a control."""
    return only(runs, "evaluation/knn-*")


def key_in(folder: Path) -> str:
    return json.loads((folder / "record.json").read_text())["key"]


def add_twin() -> None:
    """A second method on the same images: now tables compare the predictions of both."""
    twin = shutil.copytree(evaluation(), RUNS / "evaluation" / "twin-000000000000")
    edit(Path(twin), lambda record: record.update(method="twin"))
    rekeyed(Path(twin), lambda identity: identity["encoder"].update(run="0" * 64))


READERS = {
    "table": ("table", "--workspace", "runs"),
    "report": ("report", "--workspace", "runs", "--out", "page.html"),
    "runs": ("runs", "--workspace", "runs"),
    "compare": ("compare", "random", "twin", "--workspace", "runs"),
    "import": ("import", "runs", "--workspace", "other"),
}


def go_on(bench: Bench, folder: Path, *words: str) -> Result:
    return bench(*PRETRAIN, *SCENES, *words, "--workspace", folder.parent.parent)
