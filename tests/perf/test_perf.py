"""What measures speed, at toy size: it runs every part and prints what it measured."""

import re
import subprocess
import sys

from eval import perf_probes
from helpers.places import ROOT
from helpers.refusals import fails


def test_it_prints_the_ratios(bench, monkeypatch):
    peaks = {1000: 500.0, 10_000: 515.0}
    monkeypatch.setattr(perf_probes, "_peak_of", peaks.__getitem__)
    sizes = ("--images", 1000, "--solver-images", 1000)
    small = ("--image-size", 64, "--width", 0.1, "--dimensions", 40, "--memory-images", 1000)
    made = bench.ok("perf", "probes", *sizes, *small)
    assert re.search(r"the pass is \d+\.\d\d × the bare forward", made.out)
    for protocol in ("linear/logreg@1", "svm/goyal19-voc07@1", "knn/dinov2@1", "low-shot"):
        assert re.search(rf"{protocol}.* solver, 1000 images +\d", made.out)
    assert "growth +3.0%" in made.out


def test_the_solver_is_compared_with_scikit_learns():
    command = [sys.executable, ROOT / "tests/perf/scikit_learn.py", "100", "64", "0.1", "40"]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"6 layers × 13 strengths: ours .* × faster", made)
    gap = re.search(r"our objective above theirs: at most (\S+),", made)
    assert gap
    assert float(gap[1]) < 1e-4


def test_the_peak_is_that_of_a_process_of_its_own():
    assert perf_probes._peak() > 50


def test_unknown_measurements_are_refused(bench):
    fails(bench("perf", "probs"), 2, "probes")
