"""What measures speed, at toy size: it runs every part and prints what it measured."""

import json
import re
import runpy
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from eval import perf_probes
from eval.low_shot import LowShot, LowShotConfig
from helpers.places import ROOT
from helpers.refusals import fails


def test_it_prints_the_ratios(bench, monkeypatch):
    peaks = {1000: 500.0, 10_000: 515.0}
    monkeypatch.setattr(perf_probes, "_peak_of", peaks.__getitem__)
    monkeypatch.setattr(perf_probes, "_grown", lambda images, layers: (images / 1000, 9.0))
    monkeypatch.setattr(perf_probes, "TEST", 100)
    all_of, few = perf_probes._probes, LowShot(LowShotConfig(shots=(1, 2), draws=2))
    monkeypatch.setattr(
        perf_probes,
        "_probes",
        lambda *asked: [few if isinstance(one, LowShot) else one for one in all_of(*asked)],
    )
    sizes = ("--images", 1000, "--solver-images", 1000)
    small = ("--image-size", 64, "--width", 0.1, "--dimensions", 40, "--memory-images", 1000)
    made = bench.ok("perf", "probes", *sizes, *small)
    assert re.search(r"the pass is \d+\.\d\d × the bare forward", made.out)
    for protocol in ("linear/logreg@1", "svm/goyal19-voc07@1", "knn/dinov2@1", "low-shot"):
        assert re.search(rf"{protocol}.* solver, 1000 images +\d", made.out)
    assert "growth +3.0%" in made.out
    for layers in ("1 layer", "3 layers", "6 layers"):
        assert f"pass, {layers},  10000 images:  10.00 ms" in made.out
    assert made.out.count("(+900.0%; aim: within 10 %), peak 9 MiB") == 3


@pytest.fixture
def output_here(monkeypatch, capsys):
    """What a script prints that is run in this process: importing torch again takes seconds."""

    def run(script, *words):
        monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
        with warnings.catch_warnings(action="ignore"):  # scikit-learn's, of fits that are cut short
            runpy.run_path(str(ROOT / "tests/perf" / script), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_the_solver_is_compared_with_scikit_learns(output_here):
    made = output_here("scikit_learn.py", 100, 64, 0.1, 40)
    assert re.search(r"6 layers × 13 strengths: ours .* × faster", made)
    gap = re.search(r"our objective above theirs: at most (\S+),", made)
    assert gap
    assert float(gap[1]) < 1e-4


def test_solvers_are_timed_and_reach_scikit_learns_objective(output_here):
    made = output_here("solvers.py", 400, 20, 6, 200, 5, 2)
    assert re.search(r"logistic regression, 400 × 64, 20 classes, 13 strengths: \d", made)
    assert re.search(r"SVMs, 180 × 9600, 6 classes, 11 costs × 3 folds, last fit: \d", made)
    gaps = re.findall(r"scikit-learn .* × faster; our objective above theirs: at most (\S+)", made)
    assert len(gaps) == 2
    assert all(float(gap) < 1e-5 for gap in gaps)


def test_the_growth_of_the_pass_is_that_of_a_process_of_its_own():
    each, peak = perf_probes._grown(70, 2)
    assert 0 < each < 1000
    assert peak > 50


def test_two_ways_of_attention_are_compared(output_here):
    made = output_here("attention.py", 2, 1)
    assert len(re.findall(r"fused +\d+\.\d images/s, products +\d+\.\d: \d+\.\d\d ×", made)) == 6


def test_views_are_compared_with_torchvisions(output_here):
    made = output_here("augmentation.py", 16, 1)
    for size, count in ((64, 16), (224, 2)):
        assert re.search(rf"{size} px from .*, {count} images: ours .* × faster", made)


def test_batches_are_compared_with_image_folders(monkeypatch):
    monkeypatch.delenv("SSL_BENCH_DATA", raising=False)
    command = [sys.executable, ROOT / "tests/perf/loader.py", "16", "1", "400"]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert len(re.findall(r"px, batches of 16: \d.* × as fast as a DataLoader", made)) == 4
    assert len(re.findall(r"sets of 4, 40, 400, .* images/s of one core; cost", made)) == 4
    peaks = re.search(r"anonymous memory, 40 and 400 images: (\d+) and (\d+) MiB", made)
    assert peaks
    assert all(50 < int(peak) < 1000 for peak in peaks.groups())


def test_what_trains_is_compared_with_its_bare_network(output_here):
    made = output_here("trained.py", "scenes:train=4,test=2", 1, 0.05)
    found = re.findall(
        r"^(\S+)\b.*, (step|test images) .* images/s, bare .*: +[\d.]+ × its", made, re.M
    )
    assert [what for _, what in found] == 26 * ["step"] + 4 * ["step", "test images"]
    names = (
        "context-encoder", "autoencoder", "inpainting", "finetune/k", "finetune/linear",
        "detection", "segmentation", "simclr", "moco-v2", "byol", "barlow-twins", "simsiam",
        "vicreg", "relative-position", "jigsaw", "colorization", "split-brain", "npid", "mae",
        "swav", "dino", "deepcluster", "i-jepa", "lejepa", "bigan", "ibot",
    )  # fmt: skip
    assert all(any(one.startswith(name) for one, _ in found) for name in names)


def printed(made):
    """The numbers in each line that was printed, by what stands before them."""
    lines = [re.fullmatch(r"(.*?)((?: +[\d.]+)+)", line) for line in made.splitlines()]
    return {line[1]: [float(n) for n in line[2].split()] for line in lines if line}


def test_coverage_is_printed_by_experiment(output_here):
    """100 experiments a line: 95 ± 2.2 of 100 by ours, and many fewer over seeds alone."""
    found = printed(output_here("coverage.py", 100, 3))
    assert len(found) == 2 * 10 + 2 * 5 + 3
    ours = [numbers[0] for name, numbers in found.items() if "AP" not in name]
    assert 93 < sum(ours) / len(ours) < 97
    assert found["normal, shares (0, 100, 0)"][3] == 0


def test_lost_marks_are_printed_by_rows_and_seeds(output_here):
    found = printed(output_here("marks.py", 100, 3))
    assert len(found) == 2 * 4
    assert all(len(numbers) == 2 * 4 for numbers in found.values())
    lost = [numbers[place] for numbers in found.values() for place in (0, 2, 4, 6)]
    assert 0 < sum(lost) / len(lost) < 5.5


def output(script, *words):
    command = [sys.executable, ROOT / "tests/perf" / script, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_commands_that_compute_nothing_are_compared_with_importing_click():
    made = output("startup.py", 1)
    ratio = re.search(r"bench --help: (\d+\.\d) × import click", made)
    assert ratio
    assert float(ratio[1]) < 15  # aim: 5, on a machine that does nothing else
    assert len(re.findall(r"× import click, \d+\.\d\d s", made)) == 7


def test_sets_of_many_files_are_measured():
    made = output("many_files.py", 400)
    line = r"^(\w+) 400 files: \d.* µs a file; memory grows by \d+ MiB, \d+ bytes a file$"
    assert re.findall(line, made, re.M) == ["list", "check", "decode", "open"]


def test_trainings_beside_busy_processes_are_compared():
    made = output("shared_machine.py", 1, 1, 64)
    assert len(re.findall(r"beside \d busy: OpenMP's own \d+ %, ours \d+ %", made)) == 3


def test_we_are_compared_with_lightly_and_a_killed_comparison_goes_on(tmp_path):
    pytest.importorskip("lightly", reason="lightly is an oracle, and not installed")
    draw = np.random.default_rng(0)
    for folder in (tmp_path / split / kind for split in ("train", "val") for kind in "ab"):
        folder.mkdir(parents=True)
        for i in range(8):
            pixels = draw.integers(256, size=(48, 48, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    out, toy = tmp_path / "out", ("--epochs", 1, "--seeds", 1, "--image-size", 32)
    words = ("--data", tmp_path, "--out", out, *toy, "--batch-size", 4, "--workers", 0)
    made = output("lightly_parity.py", *words, "--device", "cpu")
    line = r"^(\S+) +ours kNN \S+ \d+ images/s; lightly kNN \S+ \d+ images/s: .* as fast$"
    found = re.findall(line, made, re.M)
    assert found == ["simclr", "byol", "barlow-twins"]
    results = out / "results.jsonl"
    whole = results.read_text()
    results.write_text(whole[:-20])  # killed in the last line, which is made again
    output("lightly_parity.py", *words, "--device", "cpu")
    again = results.read_text().splitlines()
    assert again[:-1] == whole.splitlines()[:-1]
    assert json.loads(again[-1])["knn"] == json.loads(whole.splitlines()[-1])["knn"]


def test_the_peak_is_that_of_a_process_of_its_own():
    assert perf_probes._peak() > 50


def test_unknown_measurements_are_refused(bench):
    fails(bench("perf", "probs"), 2, "probes")
