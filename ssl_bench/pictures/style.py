"""How all plots look, and how they are written: the same figure is the same file.

Okabe and Ito's palette ("Color Universal Design", 2008) is told apart by all kinds of colour
vision; markers and kinds of line differ as well, so that all of it can be read in grey.
"""

import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

from ssl_bench.files import written_at_once

matplotlib.use("Agg")  # before pyplot is imported: there may be no screen

# Of text and axes, of grids, of what is behind: a page puts its own in their place.
INK, GRID, GREY = "#1b1f24", "#d9dce1", "#666666"
# Yellow is too light for lines; black is the untrained rows'.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", GREY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
BROKEN = ((0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
UNTRAINED: dict[str, Any] = {"color": INK, "linestyle": BROKEN[0]}
CHANCE: dict[str, Any] = {"color": INK, "linestyle": BROKEN[1], "linewidth": 1.0}

LOOK: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 3,
    "figure.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.5,
    "grid.color": GRID,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    **{f"{part}.color": INK for part in ("text", "xtick", "ytick")},
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "svg.hashsalt": "ssl-bench",  # ids are random without
    "svg.fonttype": "none",  # text stays text: it can be found, copied and read aloud
}
styled = matplotlib.rc_context(LOOK)
# What differs from one time to the next.
UNDATED = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
CURVES = (".png", ".svg", ".pdf")


def looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A colour, a marker and a kind of line for each name: marker and line alone tell 40 apart."""
    return {
        name: {
            "color": COLOURS[i % 7],
            "marker": MARKERS[i % 8],
            "linestyle": ("-", *BROKEN)[i // 8 % 5],
        }
        for i, name in enumerate(names)
    }


def wrapped(text: str, letters: int, lines: int = 4) -> str:
    """A name in lines of so many letters, its own lines cut to `lines` each.

    `step 1,000 of 100,000` stays on one line, and `mask=random-region` as well.
    """
    whole = re.sub(r"step [\d,]+ of [\d,]+", lambda step: step[0].replace(" ", "\u00a0"), text)
    parts = [
        part
        for line in whole.split("\n")
        for part in textwrap.wrap(
            line, letters, max_lines=lines, placeholder=" …", break_on_hyphens=False
        )
    ]
    return "\n".join(parts).replace("\u00a0", " ")


def save_for_print(figure: Any, path: Path, suffixes: Iterable[str] = CURVES) -> list[Path]:
    """Write `path` with each suffix, PNG at 300 dpi, and close the figure; returns the paths."""
    from matplotlib import pyplot as plt

    paths = [path.with_name(path.name + suffix) for suffix in suffixes]
    for each in paths:
        with written_at_once(each) as scratch, matplotlib.rc_context(LOOK):
            form = {"format": each.suffix[1:], "metadata": UNDATED[each.suffix]}
            figure.savefig(scratch, dpi=300, **form)
    plt.close(figure)
    return paths
