"""The HTML page: whole in itself, every number with its record, working in a real browser."""

import importlib.util
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from helpers.bench import call
from helpers.browser import checked, dumped
from helpers.places import RESULTS, ROOT
from ssl_bench.records.workspace import read_records
from ssl_bench.tables.sentences import findings
from ssl_bench.tables.table import Table

QUICKSTART = RESULTS / "quickstart"
ACCESSIBLE = (ROOT / "tests/helpers/accessible.js").read_text(encoding="utf-8")
DARK = "--blink-settings=preferredColorScheme=0"


class Page(HTMLParser):
    """The links, ids and outside addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "a":
            self.links.append(given["href"])
        if "id" in given:
            self.ids.add(given["id"])
        if tag in ("img", "script", "link"):
            self.sources.append(given.get("src") or given.get("href") or "")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    call("report", "--workspace", QUICKSTART, "--out", path)
    return path


def test_every_number_leads_to_its_record(page: Path):
    text = page.read_text(encoding="utf-8")
    found = Page(text)
    records = read_records(QUICKSTART, "evaluation")
    shown = {f"#r-{r.key[:12]}" for r in records if r.identity.control is None}
    assert shown <= set(found.links)
    assert {link.removeprefix("#") for link in found.links} <= found.ids
    for record in records:
        assert record.identity.data["test"] in text
    assert all(source == "" or source.startswith("data:") for source in found.sources)
    assert not re.search(r"(?:src|href|url)\s*[=(]\s*[\"']?(?:https?:)?//", text)


@pytest.mark.parametrize("suite", ["quickstart", "inpainting-mini"])
def test_the_same_differences_are_bold_as_in_the_table(bench, tmp_path: Path, suite: str):
    """And the same are exploratory, in brackets."""
    path, folder = tmp_path / "page.html", RESULTS / suite
    assert bench("report", "--workspace", folder, "--out", path).code == 0
    page, text = path.read_text(encoding="utf-8"), (folder / "table.md").read_text()
    bold = re.findall(r"<strong>(.*?)</strong>", page)
    assert bold or suite == "quickstart"  # whose few seeds may leave none
    assert sorted(bold) == sorted(re.findall(r"\*\*([+−].*?)\*\*(?= )", text))
    exploratory = re.compile(r"(?<=[ >])\([+−].*? ± .*?\)(?=[ <])")
    assert sorted(exploratory.findall(page)) == sorted(exploratory.findall(text))
    assert exploratory.search(page)


def test_names_cannot_become_markup(bench, workspace: Path, tmp_path: Path):
    shutil.copytree(QUICKSTART, workspace)
    for path in workspace.glob("evaluation/*/record.json"):
        path.write_text(path.read_text().replace('"method": "random"', '"method": "<b>random"'))
    out = tmp_path / "page.html"
    assert bench("report", "--workspace", workspace, "--out", out).code == 0
    text = out.read_text(encoding="utf-8")
    assert "&lt;b&gt;random" in text
    assert "<b>random" not in text


def test_a_browser_opens_the_record_behind_a_link(page: Path, tmp_path: Path):
    key = read_records(QUICKSTART, "evaluation")[0].key[:12]

    def opened(address: str) -> list[str]:
        return re.findall(r'<details id="r-(\w+)" open="">', dumped(tmp_path, address))

    assert opened(page.as_uri()) == []
    assert opened(f"{page.as_uri()}#r-{key}") == [key]


@pytest.mark.parametrize("scheme", [(), (DARK,)])
def test_all_can_use_it_in_light_and_dark(page: Path, scheme: tuple[str, ...]):
    """Names, headings, captions, contrast; no error on the page, and nothing asked of a network."""
    dark = checked(page, "return matchMedia('(prefers-color-scheme: dark)').matches;", *scheme)
    assert dark is bool(scheme)
    assert checked(page, ACCESSIBLE, *scheme) == []


def test_the_check_finds_what_a_page_lacks(page: Path, tmp_path: Path):
    """So that an empty list means something."""
    text = page.read_text(encoding="utf-8")
    for whole, spoilt in (
        (' lang="en"', ""), ("--faint: #565d68", "--faint: #c0c0c0"), ("<h2>What", "<h4>What"),
        ('role="img" ', ""), ("<caption>Numbers", "<p>Numbers"), (' scope="row"', ""),
        ('tabindex="0" ', ""), (">light or dark<", "><"),
    ):  # fmt: skip
        assert whole in text
        text = text.replace(whole, spoilt, 1 if "#" not in whole else -1)
    (tmp_path / "spoilt.html").write_text(text, encoding="utf-8")
    said = "\n".join(checked(tmp_path / "spoilt.html", ACCESSIBLE))
    for part in ("no lang", "contrast", "h4 after h1", "a drawing without", "without a caption",
                 "without scope", "scrolled by keys", "no name: <button"):  # fmt: skip
        assert part in said


def test_axe_finds_nothing(page: Path):
    """Deque's axe-core, as the Python package for Playwright carries it."""
    package = importlib.util.find_spec("axe_playwright_python")
    if package is None or package.origin is None:
        pytest.skip("needs axe-core: axe_playwright_python is not installed")
    axe = Path(package.origin).with_name("axe.min.js").read_text(encoding="utf-8")
    check = "return (await axe.run(document)).violations.map(each => each.id);"
    assert checked(page, check, first=axe) == []


def test_on_a_phone_tables_scroll_and_the_page_does_not(page: Path):
    check = """
    const frame = document.createElement("iframe");
    frame.style = "width: 390px; height: 844px; border: 0";
    const text = document.documentElement.outerHTML.replace(/<script>[^]*?<.script>/g, "");
    frame.srcdoc = "<!DOCTYPE html>" + text;
    const loaded = new Promise(done => frame.onload = done);
    document.body.append(frame);
    await loaded;
    const inside = frame.contentDocument, wide = inside.documentElement.clientWidth;
    const free = [...inside.querySelectorAll("body *")].filter(
      each => !each.parentElement.closest(".scroll"));
    return [wide, free.length, free.filter(each => each.getBoundingClientRect().right > wide)
        .map(each => each.outerHTML.slice(0, 80)),
      [...inside.querySelectorAll(".scroll")]
        .filter(each => each.scrollWidth > each.clientWidth).length];
    """
    wide, free, outside, scrolling = checked(page, check)
    assert wide <= 390
    assert free > 50
    assert outside == []
    assert scrolling > 0


def test_tables_sort_and_filter(page: Path):
    check = """
    const [frame] = document.querySelectorAll("[data-protocol] .scroll");
    const column = () => [...frame.querySelectorAll("tbody tr")].map(
      row => parseFloat(row.cells[1].textContent));
    const head = frame.querySelectorAll("thead th")[1], seen = [];
    for (let i = 0; i < 2; i++) {
      head.querySelector("button").click();
      seen.push([head.ariaSort, column()]);
    }
    const choose = (id, value) => {
      document.getElementById(id).value = value;
      document.getElementById(id).dispatchEvent(new Event("change"));
    };
    choose("method", "autoencoder");
    choose("protocol", "linear/logreg@1");
    const shown = [...document.querySelectorAll("tr[data-methods]")].filter(
      row => row.offsetHeight > 0);
    return [seen, shown.map(row => row.cells[0].textContent),
      document.getElementById("shown").textContent];
    """
    (down, up), rows, said = checked(page, check)
    assert down[0] == "descending"
    assert up[0] == "ascending"
    # Chance has no value to sort by, and stands last.
    assert down[1][:-1] == sorted(down[1][:-1], reverse=True)
    assert up[1][:-1] == sorted(up[1][:-1])
    assert down[1][-1] == up[1][-1] == 10.0
    table = (QUICKSTART / "table.md").read_text(encoding="utf-8")
    named = [row.strip() for row in re.findall(r"^\| (.*?)\|", table, re.M)]
    expected = [row for row in named if "autoencoder" in row.split(" − ")]
    assert sorted(rows) == sorted(expected)
    assert said == f"{len(expected)} rows shown"


def test_what_the_tests_say_comes_first_then_figures_then_tables(page: Path):
    text = page.read_text(encoding="utf-8")
    heads = re.findall(r"<h2.*?>(.*?)</h2>", text)
    assert heads[:3] == ["What was measured, and what it shows", "Figures", "Tables"]
    clear = findings(Table.of(read_records(QUICKSTART, "evaluation"), QUICKSTART)).clear
    assert clear
    assert all(line in text for line in clear)
    assert text.count("<svg ") == 2  # rows and differences: nothing was measured at two layers
    assert text.count("All networks made here: ") == 2  # above the tables, and in how to read them
    assert len(text.encode()) < 1_000_000  # with pictures of masks, one for each of 25 encoders


def test_a_workspace_without_numbers_has_no_page(bench, workspace: Path):
    result = bench("report", "--workspace", workspace)
    assert result.code == 2
    assert "no evaluation" in result.err
