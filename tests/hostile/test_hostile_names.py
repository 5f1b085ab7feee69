"""Names in records lead nowhere, steer no terminal, forge no cell and become no markup."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import Bench
from helpers.hostile import (
    BELL,
    MARKUP,
    READERS,
    RUNS,
    answered,
    evaluation,
    key_in,
    plain,
    snapshot,
)
from helpers.refusals import only
from helpers.spoilt import edit

# ---- names in records
FIELDS: dict[str, Callable[[dict[str, Any], str], object]] = {
    "method": lambda record, name: record.update(method=name),
    "data": lambda record, name: record.update(data=name),
    "layer": lambda record, name: record["details"].update(column=name, asked_layer=name),
    "protocol": lambda record, name: record["details"].update(protocol=name),
    "metric": lambda record, name: (
        record["metrics"].update({name: 5.0}),
        record["details"].update(shown=[name]),
    ),
    "image": lambda record, name: record["details"].update(skipped_images=[name]),
}


@pytest.mark.parametrize("name", ["../../outside/x", "{outside}/x", "n" * 5000])
@pytest.mark.parametrize("field", FIELDS)
def test_a_name_leads_nowhere(bench, work, outside, field, name):
    before = snapshot(work.parent)
    for folder in (evaluation(), only(RUNS, "pretrain/random-*")):
        edit(folder, lambda r: r.update(method=name.replace("{outside}", str(outside))))
        if folder.parent.name == "evaluation":
            edit(folder, lambda r: FIELDS[field](r, name.replace("{outside}", str(outside))))
    for reader in ("table", "report", "runs", "import"):
        answered(bench(*READERS[reader]))
    answered(bench("table", "--workspace", "runs", "--out", "tables"))
    answered(bench("show", key_in(evaluation())[:12], "--workspace", "runs"))
    assert snapshot(work.parent) == before
    assert {path.name for path in work.iterdir()} <= {
        "runs", "mini", "mini.toml", "page.html", "tables"
    }  # fmt: skip


@pytest.mark.parametrize("name", [f"a{BELL}b", "a\0b", "a\x9b2Jb", "a\rb"])
@pytest.mark.parametrize("field", FIELDS)
def test_no_name_steers_a_terminal(bench: Bench, work: Path, field: str, name: str) -> None:
    folder = evaluation()
    edit(folder, lambda record: FIELDS[field](record, name))
    for words in (READERS["table"], READERS["runs"], ("compare", "x", "y", "--workspace", "runs")):
        result = bench(*words)
        plain(result.out + result.err)
    for words in (("verify", "runs"), ("show", key_in(folder)[:12], "--workspace", "runs")):
        result = bench(*words)
        plain(result.out + result.err)


def test_a_folder_s_name_does_not_steer_a_terminal(bench: Bench, work: Path) -> None:
    folder = evaluation()
    folder = folder.rename(folder.with_name(f"{BELL}\nbench: all is well{folder.name[-13:]}"))
    edit(folder, lambda record: record["metrics"].update(top1=99.0))
    for words in (("verify", "runs"), READERS["import"]):
        result = bench(*words)
        assert result.code == 1
        plain(result.out + result.err)
        assert not any(line.startswith("bench: all is well") for line in result.err.splitlines())


def cells(line: str) -> list[str]:
    """Of a line of a Markdown table."""
    return re.split(r"(?<!\\)\|", line)


@pytest.mark.parametrize("name", ["a | 99.9 ± 0.1 ●", "a\n| b | 99.9 ± 0.1 |", "a|b\\|c"])
@pytest.mark.parametrize("field", ["method", "layer", "protocol"])
def test_a_name_cannot_forge_a_cell(bench: Bench, work: Path, field: str, name: str) -> None:
    folder = evaluation()
    before = bench(*READERS["table"]).out.splitlines()
    edit(folder, lambda record: FIELDS[field](record, name))
    result = bench(*READERS["table"])
    answered(result, folder)
    if result.code == 0:
        lines = result.out.splitlines()
        assert [len(cells(line)) for line in lines] == [len(cells(line)) for line in before]


SAFE = r"\\(?:textbackslash|textasciicircum|textasciitilde)\b(?:\{\})?|\\[\^~]\{\}|\\[&%$#_{}]"


@pytest.mark.parametrize(
    "name", [r"\input{/etc/passwd}", "^^5cinput x", "a~b", "a & b", "50% $x_1$ {#}", "a\n\nb"]
)
def test_a_name_is_no_command_of_latex(bench: Bench, work: Path, name: str) -> None:
    edit(evaluation(), lambda record: record.update(method=name))
    result = bench(*READERS["table"], "--format", "latex")
    answered(result, evaluation())
    if result.code == 0:
        rows = result.out.split("\\midrule\n")[1]  # what follows is the line of chance
        assert len(rows.splitlines()) == 1, rows
        cell = rows.split(" & ")[0]
        left = re.sub(SAFE, "", cell)
        assert not set("\\^~&%$#_{}") & set(left), cell


# ---- the page
class Page(HTMLParser):
    """How often each tag stands in a page, and which attributes act."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.active: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.active += [name for name, _ in attrs if name.startswith("on")]
        self.active += [value for _, value in attrs if value and value.startswith("javascript:")]


def inject(record: dict[str, Any]) -> None:
    """Markup wherever a record holds text of its own."""
    metric = record["details"]["metric"]
    record.update(method=MARKUP, data=MARKUP)
    record["details"].update(
        protocol=MARKUP, column=MARKUP, asked_layer=MARKUP, encoder=MARKUP, interval=MARKUP,
        pretraining_data=MARKUP, skipped_images=[MARKUP], units={metric: MARKUP},
    )  # fmt: skip
    record["details"]["selection"][MARKUP] = MARKUP
    record["metrics"][MARKUP] = record["metrics"][metric]
    record["provenance"].update(command=MARKUP, device=MARKUP, packages={MARKUP: MARKUP})


def test_no_text_of_a_record_becomes_markup(bench: Bench, work: Path) -> None:
    folder = evaluation()
    words = ("report", "--workspace", "runs", "--out", "page.html", "--title")
    edit(folder, lambda record: record["metrics"].update(x=1.0))
    edit(folder, lambda record: record["details"].update(skipped_images=["x"]))
    edit(folder, lambda record: record["provenance"].update(packages={"x": "1"}))
    bench.ok(*words, "x")
    clean = Page(Path("page.html").read_text(encoding="utf-8"))
    edit(folder, lambda record: record["metrics"].pop("x"))
    edit(folder, inject)
    bench.ok(*words, MARKUP)
    text = Path("page.html").read_text(encoding="utf-8")
    found = Page(text)
    assert text.count("&lt;script&gt;alert(1)") > 10
    assert found.tags.keys() == clean.tags.keys()
    # Of a picture's parts, others stand for other names and numbers.
    drawn = {"svg", "defs", "g", "use", "path", "text", "tspan", "clippath", "rect", "style"}
    assert {t: n for t, n in found.tags.items() if t not in drawn} == {
        t: n for t, n in clean.tags.items() if t not in drawn
    }
    assert found.active == []
