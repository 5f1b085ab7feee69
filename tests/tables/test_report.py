"""The HTML page: whole in itself, every number with its record, working in a real browser."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from helpers.places import RESULTS
from ssl_bench.records.workspace import read_records

QUICKSTART = RESULTS / "quickstart"
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=2000",
)  # fmt: skip


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


@pytest.fixture
def page(bench, tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    assert bench("report", "--workspace", QUICKSTART, "--out", path).code == 0
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
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs a browser: neither chromium nor google-chrome is installed")
    key = read_records(QUICKSTART, "evaluation")[0].key[:12]
    command = [browser, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]

    def opened(address: str) -> list[str]:
        run = subprocess.run([*command, address], capture_output=True, text=True, timeout=120)
        return re.findall(r'<details id="r-(\w+)" open="">', run.stdout)

    assert opened(page.as_uri()) == []
    assert opened(f"{page.as_uri()}#r-{key}") == [key]


def test_a_workspace_without_numbers_has_no_page(bench, workspace: Path):
    result = bench("report", "--workspace", workspace)
    assert result.code == 2
    assert "no evaluation" in result.err
