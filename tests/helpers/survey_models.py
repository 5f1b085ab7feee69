"""Which models of timm and torchvision are encoders: each is built without numbers, on `meta`.

    PYTHONPATH=tests python -m helpers.survey_models OUT.jsonl           # a line a model, resumable
    PYTHONPATH=tests python -m helpers.survey_models OUT.jsonl --table   # that of docs/encoders.md

A model works if every layer gives a map (2, C, h, w) of two images of its own size, with as many
channels as the library says, `pooled` too; then the first other size is looked for at which its
layers have the same channels. Members of a family are spread: each family is seen before any is
finished.
"""

import json
import sys
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import timm
import torch
import torchvision.models
from timm.layers import weight_init

from ssl_bench.encoders.build import own_spec
from ssl_bench.encoders.encoder import POOLED, check_maps, probe
from ssl_bench.encoders.from_timm import TimmEncoder
from ssl_bench.encoders.from_torchvision import TorchvisionEncoder, family_of
from ssl_bench.encoders.libraries import refusal
from ssl_bench.errors import UsageError

OTHERS = (64, 96, 112, 128, 192, 256, 448)  # px, and twice the own; 112 for patches of 14 px
Line = dict[str, Any]


def models() -> list[tuple[str, str]]:
    """Each model's arch and family, which is the library's module that defines it."""
    families: dict[str, list[str]] = defaultdict(list)
    for name in timm.list_models():
        family = timm.model_entrypoint(name).__module__.rpartition(".")[2]
        families[f"timm {family}"].append(f"timm:{name}")
    for name in torchvision.models.list_models(module=torchvision.models):
        families[f"torchvision {family_of(name)}"].append(f"torchvision:{name}")
    ranked = [
        (place / len(archs) if place else -1, family, arch)
        for family, archs in families.items()
        for place, arch in enumerate(archs)
    ]
    return [(arch, family) for _, family, arch in sorted(ranked)]


def build(arch: str, size: int) -> TimmEncoder | TorchvisionEncoder:
    """On `meta`, or on the CPU if the model looks at numbers; UsageError where it is refused."""
    library, _, name = arch.partition(":")
    kind = TimmEncoder if library == "timm" else TorchvisionEncoder
    with torch.device("meta"):
        encoder = kind(name, size, pretrained=False)
    return encoder if encoder.shapes else kind(name, size, pretrained=False)


def channels(encoder: TimmEncoder | TorchvisionEncoder, arch: str, size: int) -> dict[str, int]:
    """Of each layer at another size; UsageError where the model is refused."""
    if encoder.fixed:  # at construction
        return {layer: shape[0] for layer, shape in build(arch, size).shapes.items()}
    with refusal(arch, size, own_spec(arch).image_size):
        maps = probe(encoder, size)
        check_maps(maps, (2, 3, size, size), arch)
    return {layer: given.shape[1] for layer, given in maps.items()}


def look(arch: str, family: str) -> Line:
    """What becomes of one model: `refused` says why, `other` names the second size."""
    own, start = own_spec(arch).image_size, time.monotonic()
    line: Line = {"arch": arch, "family": family, "own": own, "refused": None, "other": None}
    try:
        encoder = build(arch, own)
        first = {layer: shape[0] for layer, shape in encoder.shapes.items()}
        line |= {"layers": len(first), "pooled": first.get(POOLED), "keep": encoder.takes_keep}
        if isinstance(encoder, TimmEncoder):
            said = {info["module"]: info["num_chs"] for info in encoder.model.feature_info}
            if POOLED in first:
                said[POOLED] = encoder.model.head_hidden_size
            assert first == said, f"channels {first}, said to be {said}"
        line["other"] = other_size(encoder, arch, own, first)
    except UsageError as error:
        line["refused"] = str(error)
    except Exception:  # what should have been refused
        line["refused"] = line["defect"] = traceback.format_exc()
    return line | {"seconds": round(time.monotonic() - start, 1)}


def other_size(encoder: Any, arch: str, own: int, first: dict[str, int]) -> int | None:
    """The first other size that the model takes, if any."""
    for size in (*OTHERS, 2 * own):
        if size == own:
            continue
        try:
            found = channels(encoder, arch, size)
        except UsageError:
            continue
        assert found == first, f"channels {found} at {size} px, {first} at {own} px"
        return size
    return None


def table(lines: list[Line]) -> Iterator[str]:
    """Markdown, a row a family; of a family that is not finished, how many were run."""
    families, total = defaultdict(list), Counter(family for _, family in models())
    for line in lines:
        families[line["family"]].append(line)
    heads = "| family | models | run | work | layers | `pooled` | `keep` | "
    yield heads + "at another size, px | refused |"
    yield "|---|---:|---:|---:|---:|---:|---:|---|---|"
    for family, members in sorted(families.items()):
        good = [line for line in members if not line["refused"]]
        layers = sorted({line["layers"] for line in good})
        span = "–".join(map(str, dict.fromkeys((layers[0], layers[-1])))) if layers else ""
        sizes = Counter(line["other"] for line in good if line["other"])
        others = ", ".join(f"{count} at {size}" for size, count in sizes.items())
        reasons = Counter(_reason(line) for line in members if line["refused"])
        refused = "; ".join(f"{count}: {reason}" for reason, count in reasons.items())
        yield (
            f"| {family} | {total[family]} | {len(members)} | {len(good)} | {span} "
            f"| {_count(good, 'pooled')} | {_count(good, 'keep')} | {others} | {refused} |"
        )
    good = [line for line in lines if not line["refused"]]
    others, refused = _count(good, "other"), len(lines) - len(good)
    yield (
        f"| all | {total.total()} | {len(lines)} | {len(good)} | | {_count(good, 'pooled')} "
        f"| {_count(good, 'keep')} | {others} | {refused} |"
    )


def _count(lines: list[Line], what: str) -> int:
    """How many have it."""
    return sum(bool(line[what]) for line in lines)


def _reason(line: Line) -> str:
    return line["refused"].strip().splitlines()[-1].removeprefix(line["arch"]).strip()[:150]


def main() -> None:
    """See the top."""
    path = Path(sys.argv[1])
    lines = [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
    if "--table" in sys.argv:
        print("\n".join(table(lines)))
        return
    done = {line["arch"] for line in lines}
    # Drawing weights takes half of the time, and on `meta` they have no numbers.
    undrawn = patch.object(weight_init, "_trunc_normal_", lambda tensor, *_: tensor)
    with path.open("a") as file, undrawn, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for arch, family in models():
            if arch not in done:
                file.write(json.dumps(look(arch, family), ensure_ascii=False) + "\n")
                file.flush()


if __name__ == "__main__":
    main()
