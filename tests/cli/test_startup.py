"""Who only reads waits for no torch: reading commands import none, a finished suite no loop."""

import json
import os
import subprocess
import sys

from helpers.places import ROOT

PLACE = ("--workspace", ROOT / "results/quickstart")
HEAVY = ("torch", "pandas", "matplotlib", "sklearn", "scipy.stats")  # 0.1 s to 2 s each
READING = [
    ("--help",),
    ("--version",),
    ("runs", *PLACE),
    ("table", *PLACE),
    ("table", "--workspace", ROOT / "results/inpainting-mini"),
    ("compare", "context-encoder", "random", *PLACE),
    ("show", "12af8ba6cdc1", *PLACE),
    ("protocols",),
    ("protocols", "show", "detection/fast-rcnn"),
    ("data", "list"),
    ("knn", "--help"),
    ("finetune", "--help"),
    ("report", "--out", "report.html", *PLACE),
]
# The commands one after the other in one process, and what it has imported after each.
MAIN = """
import json, sys
from ssl_bench.cli.main import main
found = {}
for words in json.loads(sys.argv[1]):
    sys.argv = ["bench", *words]
    try:
        main()
    except SystemExit as stopped:
        assert not stopped.code, words
    found[" ".join(words)] = [*sys.modules]
print(json.dumps(found), file=sys.stderr)
"""


def imported(*commands, cwd):
    """By command, what has been imported when it is done; all must succeed."""
    texts = json.dumps([[*map(str, words)] for words in commands])
    made = subprocess.run(
        [sys.executable, "-c", MAIN, texts], capture_output=True, text=True, cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return {name: {*known} for name, known in json.loads(made.stderr.splitlines()[-1]).items()}


def test_reading_commands_import_no_torch(tmp_path):
    found = imported(*READING, cwd=tmp_path)
    assert len(found) == len(READING)
    assert all("ssl_bench.cli.main" in known for known in found.values())
    draws = {"matplotlib"}  # a report has figures
    heavy = {name: known & {*HEAVY} - (draws if name.startswith("report") else set())
             for name, known in found.items()}  # fmt: skip
    assert not {name: known for name, known in heavy.items() if known}


SUITE = """
name = "toy"
data = "scenes:train=40,test=20"
encoder = { image_size = 64, width = 0.1 }

[[pretrain]]
method = "random"

[[evaluate]]
evaluation = "linear-probe"
layers = ["conv2"]
strengths = 2
"""


def test_a_finished_suite_imports_no_loop(tmp_path, bench):
    (tmp_path / "toy.toml").write_text(SUITE)
    words = ("run", tmp_path / "toy.toml", "--workspace", tmp_path / "runs", "--workers", 0)
    bench.ok(*words)
    (found,) = imported(words, cwd=tmp_path).values()
    assert "torch" in found  # whose modules the pretexts are
    assert not found & {"torch._dynamo", "lightning_fabric", "timm", "torchvision", *HEAVY[1:]}
