"""A real browser, if there is one: a page as its script has left it, and what a check finds.

Chromium without a window dumps the document after a while of its own clock; a check is a script at
the page's end that writes what it found into the document. So nothing is spoken with the browser.
"""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BROWSERS = "chromium", "chromium-browser", "google-chrome"
QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=3000",
)  # fmt: skip
FOUND = re.compile(r'<script type="application/json" id="found">(.*?)</script>', re.DOTALL)
# Before all else on the page, so that nothing of it is missed.
WATCH = """<script>
window.wrong = [];
addEventListener("error", event => wrong.push(String(event.message)), true);
for (const kind of ["error", "warn"]) console[kind] = (...said) => wrong.push(said.join(" "));
</script>"""
REPORT = """<script>
addEventListener("load", async () => {{
  let found;
  try {{ found = await (async () => {{ {check} }})(); }} catch (error) {{ found = String(error); }}
  const made = document.createElement("script");
  const asked = performance.getEntriesByType("resource").map(each => each.name);
  made.type = "application/json";
  made.id = "found";
  made.textContent = JSON.stringify({{found, wrong, asked}});
  document.body.append(made);
}});
</script>"""


def dumped(folder: Path, address: str, *options: str) -> str:
    """The document of an address after its script; a test without a browser is skipped."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is installed")
    command = [browser, *QUIET, f"--user-data-dir={folder / 'profile'}", *options, "--dump-dom"]
    run = subprocess.run([*command, address], capture_output=True, text=True, timeout=120)
    return run.stdout


def checked(page: Path, check: str, *options: str, first: str = "") -> Any:
    """What the body of an async function returns on a page.

    Fails for an error or a warning on the page, or anything that the page asked a network for.
    `first` is a script's text that runs before it.
    """
    copy = page.with_name(f"checked-{page.name}")
    text = page.read_text(encoding="utf-8").replace("<head>", f"<head>{WATCH}", 1)
    scripts = (f"<script>{first}</script>" if first else "") + REPORT.format(check=check)
    copy.write_text(text.replace("</body>", f"{scripts}</body>"), encoding="utf-8")
    match = FOUND.search(dumped(page.parent, copy.as_uri(), *options))
    assert match, "the page's check wrote nothing"
    found = json.loads(html.unescape(match[1]))
    assert found["wrong"] == []
    assert [each for each in found["asked"] if not each.startswith("data:")] == []
    return found["found"]
