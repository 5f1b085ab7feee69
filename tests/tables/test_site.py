"""Several reports as one site: links lead somewhere, leaderboards are of the same thing only."""

import re
from pathlib import Path

import pytest

from helpers.browser import checked
from helpers.places import ROOT
from helpers.predictions import LESS, MORE, answers, stored
from helpers.refusals import fails
from ssl_bench.errors import DataError
from ssl_bench.records.workspace import read_records
from ssl_bench.tables.sentences import findings
from ssl_bench.tables.site import SuiteOfSite, leaderboards, write_site
from ssl_bench.tables.table import Table

ACCESSIBLE = (ROOT / "tests/helpers/accessible.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two suites on the same images, and a third on others; one number is in two of them."""
    root = tmp_path_factory.mktemp("root")
    stored(root / "one", "random", LESS)
    stored(root / "one", "context-encoder", MORE)
    stored(root / "two", "random", LESS)
    stored(root / "two", "a <b>/.. name", answers(99, 1))
    stored(root / "three", "random", LESS, data="other images")
    return root


@pytest.fixture(scope="module")
def site(root: Path) -> Path:
    named = [(name, root / name) for name in ("one", "two", "three")]
    write_site(named, root.parent / "site", lambda table, workspace: [], table_of)
    return root.parent / "site"


def table_of(workspace: Path) -> Table:
    return Table.of(read_records(workspace, "evaluation"), workspace)


def suites(root: Path) -> list[SuiteOfSite]:
    tables = {name: table_of(root / name) for name in ("one", "two", "three")}
    return [
        SuiteOfSite(name, f"suite-{name}.html", root / name, table, findings(table))
        for name, table in tables.items()
    ]


def test_rows_of_suites_meet_only_on_the_same_images(root: Path) -> None:
    boards = leaderboards(suites(root))
    found = [[(e.suite.name, e.row, e.cell.mean) for e in board.entries] for board in boards]
    same = [("two", "a <b>/.. name", 99.0), ("one", "context-encoder", 60.0),
            ("one", "random", 52.0)]  # fmt: skip
    assert sorted(found, key=len) == [[("three", "random", 52.0)], same]
    assert sorted(board.suites for board in boards) == [1, 2]


def test_the_best_comes_first_and_marks_are_the_suites_own(root: Path) -> None:
    (board,) = [board for board in leaderboards(suites(root)) if board.suites == 2]
    marks = {(e.suite.name, e.row): e.leading for e in board.entries}
    for (name, row), leading in marks.items():
        table = table_of(root / name)
        assert leading is ((row, "linear/logreg@1 pool5") in table.leading)
    # 60 of 100 is told apart from 52 in its own suite; beside 99 nothing is said of it.
    assert marks["one", "context-encoder"]
    assert not marks["one", "random"]


def test_all_links_lead_to_something_beside_them(site: Path) -> None:
    pages = {path.name: path.read_text(encoding="utf-8") for path in site.iterdir()}
    assert {"index.html", "suite-one.html", "method-random.html"} <= {*pages}
    count = 0
    for name, text in pages.items():
        for link in re.findall(r'<a href="(.*?)"', text):
            page, _, part = link.partition("#")
            assert "/" not in page
            assert not part or f'id="{part}"' in pages[page or name]
            count += 1
    assert count > 20
    assert not re.search(r"(?:src|href|url)\s*[=(]\s*[\"']?(?:https?:)?//", "".join(pages.values()))


def test_names_cannot_become_markup_or_ways(site: Path) -> None:
    (page,) = site.glob("method-a*.html")
    assert re.fullmatch(r"method-a-b-\.\.-name-\w{6}\.html", page.name)
    index = (site / "index.html").read_text(encoding="utf-8")
    assert "a &lt;b&gt;/.. name" in index
    assert "<b>" not in index


def test_a_methods_page_has_all_its_numbers(site: Path) -> None:
    text = (site / "method-random.html").read_text(encoding="utf-8")
    assert text.count("52.0 ± ") == 3
    for name in ("one", "two", "three"):
        assert f'<a href="suite-{name}.html">{name}</a>' in text


@pytest.mark.parametrize("name", ["index", "method-random"])
def test_all_can_use_it(site: Path, name: str) -> None:
    assert checked(site / f"{name}.html", ACCESSIBLE) == []


def test_the_command_writes_it(bench, root: Path, tmp_path: Path) -> None:
    said = bench.ok("site", root, "--out", tmp_path / "site")
    assert "wrote" in said.err
    assert len([*(tmp_path / "site").glob("suite-*.html")]) == 3
    (tmp_path / "empty").mkdir()
    fails(bench("site", tmp_path / "empty"), 2, "no record")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_site([], tmp_path / "file" / "x", lambda table, workspace: [], table_of)
