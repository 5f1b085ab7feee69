"""The committed tables are what their records say, and the records what their predictions say."""

from pathlib import Path

import numpy as np
import pytest

from ssl_bench.metrics import top1
from ssl_bench.records import file_digest, read_records
from ssl_bench.tables import Table

RESULTS = Path(__file__).parent.parent / "results"
SUITES = sorted(path.parent for path in RESULTS.glob("*/table.md"))


@pytest.mark.parametrize("folder", SUITES, ids=lambda folder: folder.name)
def test_the_table_comes_from_the_records(folder):
    table = Table.of(read_records(folder, "evaluation"), folder)
    assert (folder / "table.md").read_text() == table.markdown() + "\n"
    assert (folder / "table.csv").read_text() == table.csv() + "\n"
    assert (folder / "table.tex").read_text() == table.latex() + "\n"


@pytest.mark.parametrize("folder", SUITES, ids=lambda folder: folder.name)
def test_the_records_come_from_the_predictions(folder):
    records = read_records(folder, "evaluation")
    assert records
    for record in records:
        (path,) = folder.glob(f"evaluation/*-{record.key[:12]}/predictions.npz")
        assert file_digest(path) == record.files["predictions.npz"]
        with np.load(path) as rows:
            assert top1(rows["label"], rows["predicted"]) == pytest.approx(record.metrics)


def test_the_readme_shows_the_committed_table():
    readme = (RESULTS.parent / "README.md").read_text()
    shown = readme.split("<!-- quickstart table -->\n")[1].split("<!-- end -->")[0]
    assert shown.strip() == (RESULTS / "quickstart" / "table.md").read_text().strip()
