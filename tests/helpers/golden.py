"""Golden numbers: what a tiny CPU run of every protocol and pretext gives, by version.

    python tests/helpers/golden.py              # writes tests/helpers/golden.json
    python tests/helpers/golden.py --disturb    # prints the numbers that rounding moves; minutes

tests/system/test_golden.py compares. Numbers of a version that has not been raised are never
overwritten.
What rounding must move, such as a rank between nearly equal scores, is kept as an interval, by
hand: {"between": [low, high], "because": "..."} in the number's place.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from ssl_bench import catalogue
from ssl_bench.encoders.build import EncoderSpec
from ssl_bench.evaluation import features
from ssl_bench.evaluation.evaluate import evaluate
from ssl_bench.evaluation.reference import Reference
from ssl_bench.records.protocols import protocols
from ssl_bench.records.record import PretrainRecord
from ssl_bench.records.workspace import folder_of, predictions_of
from ssl_bench.runtime import Runtime
from ssl_bench.training.build import build_pretext
from ssl_bench.training.pretrain import pretrain

FILE = Path(__file__).with_suffix(".json")
# Other CPUs sum in other orders: a relative 1e-7 in 32 bit, more after some steps of training.
TOLERANCE = 1e-4

RUNTIME = Runtime(workers=0, devices="1")
ENCODER = {"image_size": 64, "width": 0.1, "init": "fan-in"}
STEPS = {"steps": 3, "batch_size": 8}
NORMED = {"arch": "timm:test_efficientnet", "image_size": 64}
RECIPE = NORMED | STEPS | {"recipe": "small"}
HEAD = {"projector": (32, 16)}
FEW_CROPS = {"small_crops": 2}
# Not the recipe's Adam, whose first steps go either way where a gradient is nearly 0.
SGD = {"optimizer": "sgd", "lr": 0.06}
SWAV = SGD | {"prototypes": 24, "queue": 16, "frozen": 1}
MASKED = STEPS | {"recipe": "small", "arch": "timm:test_vit", "image_size": 64, "warmup": 0}
PRETEXTS: dict[str, dict[str, Any]] = {
    "random": ENCODER,
    "autoencoder": ENCODER | STEPS,
    "context-encoder": ENCODER | STEPS,
    "kmeans-init": ENCODER | {"images": 20, "patches": 400},
    "rotation": ENCODER | STEPS | {"lr": 0.01},
    "inpainting": STEPS | {"width": 0.05, "bottleneck": 8, "lr": 2e-5},
    "simclr": RECIPE | HEAD,
    "moco-v2": RECIPE | HEAD | {"queue": 20},
    "byol": RECIPE | HEAD | {"predictor": 32},
    "barlow-twins": RECIPE | HEAD | {"lr": 0.006},
    "simsiam": RECIPE | HEAD | {"predictor": 8},
    "vicreg": RECIPE | HEAD,
    "relative-position": RECIPE | {"hidden": 32},
    "jigsaw": RECIPE | {"hidden": 32, "permutations": 20},
    "colorization": RECIPE | {"hidden": 32},
    "split-brain": RECIPE | {"hidden": 32},
    "npid": RECIPE | {"projector": (16,)},
    "deepcluster": ENCODER | STEPS | {"clusters": 4, "hidden": 16, "lr": 0.01},
    # Two networks that judge each other amplify rounding unless their rate is low.
    "bigan": RECIPE | {"latent": 8, "channels": 4, "lr": 2e-5},
    "mae": MASKED | {"decoder_depth": 1, "decoder_width": 32},
    "i-jepa": MASKED | {"predictor_depth": 1, "predictor_width": 32},
    "swav": RECIPE | HEAD | FEW_CROPS | SWAV,
    "lejepa": RECIPE | HEAD | FEW_CROPS | {"slices": 32, "optimizer": "sgd", "warmup": 0},
    "dino": RECIPE | HEAD | FEW_CROPS | {"outputs": 24, "frozen": 1},
    "ibot": MASKED
    | HEAD
    | FEW_CROPS
    | {"outputs": 24, "frozen": 1, "optimizer": "sgd", "lr": 0.06},
}
SQUARES, WHOLE = "scenes:train=60,test=40", "scenes:train=20,test=8"
SMALL = {"short": 64, "longest": 64, "head": 16, "lr": 0.01}
# By protocol: encoder, layer, data and settings.
EVALUATIONS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "linear/logreg": ("random", "conv5", SQUARES, {}),
    "linear/zhang16": ("random", "conv3", SQUARES, {"epochs": 1, "batch_size": 16}),
    "svm/goyal19-voc07": ("random", "conv5", SQUARES, {}),
    "knn/dinov2": ("random", "conv3", SQUARES, {"k": (5, 10, 20)}),
    "knn/vissl": ("random", "conv3", SQUARES, {"k": (20,)}),
    "knn/lightly": ("random", "conv3", SQUARES, {"k": (20,)}),
    "low-shot/goyal19": ("random", "conv5", SQUARES, {"shots": (1, 3), "draws": 2}),
    "finetune/krahenbuhl16": (
        "random", "conv5", WHOLE,
        STEPS | {"steps": 5, "head": 64, "crops": 2, "lr": 0.05, "rescale": True},
    ),
    "finetune/linear-head": ("random", "conv5", SQUARES, STEPS | {"labels": 3}),
    "segmentation/fcn32s": ("random", "conv5", WHOLE, STEPS | SMALL | {"kernel": 1}),
    "detection/fast-rcnn": ("random", "conv5", WHOLE, STEPS | SMALL | {"rois": 16}),
    "inpainting/pathak16": ("context-encoder", "conv3", WHOLE, {}),
}  # fmt: skip
# Of a selection: how the run went, what is nearly 0, precisions of detections as good as tied.
UNSTEADY = {"images_per_second", "data_wait", "iterations", "distortion", "ap11"}

Entry = dict[str, Any]  # version, digest (of a protocol), numbers


def pretext_entry(method: str, workspace: Path) -> Entry:
    """The last losses, the length of all weights of a file, and how far the encoder's moved.

    Adam's first steps are as long whatever a gradient is: where it is nearly 0, a single weight
    goes either way by the order of sums, but as far. The two networks of inpainting amplify that
    unless their rate is low.
    """
    record = _pretrained(method, workspace)
    numbers: dict[str, float] = dict(record.metrics)
    folder = folder_of(workspace, record)
    for path in sorted(folder.glob("*.safetensors")):
        numbers[path.stem] = _length(load_file(path).values())
    spec = EncoderSpec.model_validate(record.details.encoder.spec)
    config = catalogue.pretext(method).Config.model_validate(PRETEXTS[method])
    start = build_pretext(method, config, spec.normalization)[0].encoder
    weights = load_file(folder / "encoder.safetensors")
    moved = (weights[n] - w.detach().numpy() for n, w in start.named_parameters())
    numbers["moved"] = _length(moved)
    return {"version": catalogue.pretext(method).version, "numbers": numbers}


def _length(arrays: Iterable[np.ndarray]) -> float:
    return float(sum(np.square(rows, dtype=np.float64).sum() for rows in arrays) ** 0.5)


def protocol_entry(name: str, workspace: Path) -> Entry:
    """The sizes of the predictions and the numbers of what was chosen, at every point."""
    method, layer, data, settings = EVALUATIONS[name]
    known = protocols()[name]
    harness = _harness(known.printed)
    request = (harness(harness.Config(**settings)), [layer])
    run = _pretrained(method, workspace)
    encoder = Reference(f"{method}@{run.key}", workspace)
    numbers: dict[str, float] = {}
    for record in evaluate([request], encoder, data, workspace, RUNTIME):
        prefix = f"{record.identity.layer} "
        for array, rows in predictions_of(record, workspace).items():
            numbers[f"{prefix}{array}"] = size_of(rows)
        chosen = record.details.selection
        numbers |= {f"{prefix}{path}": number for path, number in _numbers(chosen)}
    return {"version": known.version, "digest": known.digest, "numbers": numbers}


def _pretrained(method: str, workspace: Path) -> PretrainRecord:
    config = catalogue.pretext(method).Config.model_validate(PRETEXTS[method])
    return pretrain(method, config, SQUARES, workspace, RUNTIME)


def _harness(printed: str) -> Any:
    found = map(catalogue.evaluation, catalogue.names("eval"))
    return next(harness for harness in found if harness.protocol == printed)


def size_of(rows: np.ndarray) -> float:
    """Root of the mean square; later places weigh more, so that the order counts."""
    squares = rows.astype(np.float64).ravel() ** 2
    return float(np.sqrt(np.average(squares, weights=np.arange(1, len(squares) + 1))))


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """All numbers in a selection with their places in it."""
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for name, each in inner:
            if name not in UNSTEADY:
                yield from _numbers(each, f"{path} {name}".strip())
    elif isinstance(value, int | float):
        yield path, float(value)


# ---- comparing
def own(kind: str) -> list[str]:
    """Our own pretexts, or protocols; those of other packages have no golden numbers here."""
    if kind == "pretexts":
        names = catalogue.names("pretext")
        return [n for n in names if catalogue.pretext(n).__module__.startswith("pretext.")]
    known = protocols()
    return [n for n in known if _harness(known[n].printed).__module__.startswith("eval.")]


def complaint(name: str, stored: Mapping[str, Any] | None, found: Entry) -> str | None:
    """What is to be said of an entry that is not the stored one; None if it is."""
    if stored is None:
        return f"there are no numbers of {name}: `python tests/helpers/golden.py` writes them"
    if stored["version"] != found["version"]:
        return (
            f"the numbers are those of {name}@{stored['version']}, and it is "
            f"{name}@{found['version']}: `python tests/helpers/golden.py` writes new ones"
        )
    if found.get("digest") != stored.get("digest") or differing(stored, found):
        which = ", ".join(differing(stored, found)[:3]) or "the digest of its settings"
        return (
            f"the numbers of {name}@{found['version']} have changed: raise its version, or find "
            f"out why; `python tests/helpers/golden.py` writes new ones ({which})"
        )
    return None


def differing(stored: Mapping[str, Any], found: Entry) -> list[str]:
    """The names of numbers that are not the same within TOLERANCE."""
    old, new = stored["numbers"], found["numbers"]
    return [
        f"{name}: {old.get(name)} -> {new.get(name)}"
        for name in sorted(old.keys() | new.keys())
        if name not in old or name not in new or not agrees(old[name], new[name])
    ]  # fmt: skip


def agrees(stored: Any, found: float) -> bool:
    """Within TOLERANCE of the stored number, or in the stored interval, to TOLERANCE."""
    low, high = stored["between"] if isinstance(stored, dict) else (stored, stored)
    inside = low <= found <= high
    return inside or bool(np.isclose([low, high], found, rtol=TOLERANCE, atol=1e-12).any())


# ---- writing
def renewed(
    stored: Mapping[str, Entry], found: Mapping[str, Entry]
) -> tuple[dict[str, Entry], list[str]]:
    """The entries to keep, and the complaints about those that may not be overwritten.

    An entry that is new, or whose version was raised, is written; one that is the same within
    TOLERANCE keeps its numbers.
    """
    kept, refused = {}, []
    for name, entry in found.items():
        old = stored.get(name)
        if old is None or old["version"] != entry["version"]:
            kept[name] = entry
            continue
        kept[name] = old
        refused += filter(None, [complaint(name, old, entry)])
    return kept, refused


def read() -> dict[str, dict[str, Entry]]:
    """The stored entries by kind; none where there is no file."""
    if not FILE.exists():
        return {"pretexts": {}, "protocols": {}}
    return json.loads(FILE.read_text(encoding="utf-8"))


def made() -> dict[str, dict[str, Entry]]:
    """All entries, made now, by kind."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SSL_BENCH_CACHE"] = f"{folder}/cache"
        return {
            kind: {name: entry(name, Path(folder) / "runs") for name in own(kind)}
            for kind, entry in (("pretexts", pretext_entry), ("protocols", protocol_entry))
        }


def main() -> int:
    stored, kept, refused = read(), {}, []
    for kind, found in made().items():
        kept[kind], more = renewed(stored[kind], found)
        refused += more
    FILE.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print("\n".join(refused), file=sys.stderr)
    return 1 if refused else 0


# ---- disturbing: what other machines may give
# Each library has a switch of its own for the instructions that it may use.
ISA = ("ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE")
NOISE = 1e-6  # relative, of every feature: ten times what other orders of sums give
DISTURBANCES: dict[str, dict[str, str]] = {
    "as it is": {},
    "2 threads": {"OMP_NUM_THREADS": "2"},
    "no AVX": dict(zip(ISA, ("default", "SSE4_2", "SSE41", "Nehalem"), strict=True)),
    "AVX2": dict(zip(ISA, ("avx2", "AVX2", "AVX2", "Haswell"), strict=True)),
    "AVX-512": dict(zip(ISA, ("avx512", "AVX512", "AVX512_CORE", "SkylakeX"), strict=True)),
    "noise": {"GOLDEN_NOISE": "1"},
    "other noise": {"GOLDEN_NOISE": "2"},
}


def disturb() -> int:
    """Prints how far each disturbance moves the numbers; 1 if one leaves what is stored."""
    runs = {name: _elsewhere(values) for name, values in DISTURBANCES.items()}
    still, stored, moved = runs["as it is"], _flat(read()), False
    for run, numbers in runs.items():
        furthest = max(numbers, key=lambda name: _apart(still[name], numbers[name]))
        print(f"{run}: at most {_apart(still[furthest], numbers[furthest]):.1e}, {furthest}")
        for name, number in numbers.items():
            if not agrees(stored.get(name, np.nan), number):
                print(f"    {name}: {stored.get(name)} -> {number}")
                moved = True
    return int(moved)


def _apart(a: float, b: float) -> float:
    return abs(a - b) / max(abs(a), abs(b), 1e-12)


def _elsewhere(values: dict[str, str]) -> dict[str, float]:
    """The numbers of a process of its own with other variables."""
    asked = [sys.executable, __file__, "--print"]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **values}
    done = subprocess.run(asked, env=variables, stdout=subprocess.PIPE, check=True)
    return _flat(json.loads(done.stdout.splitlines()[-1]))


def _flat(entries: Mapping[str, Mapping[str, Entry]]) -> dict[str, Any]:
    return {
        f"{name} {number}": value
        for kind in entries.values()
        for name, entry in kind.items()
        for number, value in entry["numbers"].items()
    }


def _noisy(seed: int) -> None:
    """Every feature of this process from now on is NOISE off, at random."""
    random, right = torch.Generator().manual_seed(seed), features.pool

    def pool(maps: torch.Tensor, dimensions: int) -> torch.Tensor:
        rows = right(maps, dimensions)
        return rows * (1 + NOISE * torch.randn(rows.shape, generator=random))

    features.pool = pool


def print_all() -> int:
    if seed := os.environ.get("GOLDEN_NOISE"):
        _noisy(int(seed))
    print(json.dumps(made()))
    return 0


if __name__ == "__main__":
    sys.exit({"--disturb": disturb, "--print": print_all}.get("".join(sys.argv[1:]), main)())
