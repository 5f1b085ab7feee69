"""SimCLR, BYOL and Barlow Twins by us and by lightly: nearest neighbours, and images a second.

    python tests/perf/lightly_parity.py --data imagenette-128 --epochs 10 --seeds 3 --device cuda
    python tests/perf/lightly_parity.py --data photos --epochs 1 --seeds 1 --device cpu

Ours is `bench pretrain METHOD --recipe small`; theirs is lightly's losses, heads and transforms
(by a DataLoader, of whole images) around torchvision's ResNet-18, in the loop of its examples. Both
have the same epochs, batches, optimiser, rate and precision, bf16 on a GPU. `knn/lightly@1` then
measures both by the same code, from files of weights, on the folder's test images.

Every (method, side, seed) is a line of OUT/results.jsonl as soon as it is known: what is there is
not made again, so a run that was killed goes on. lightly is no dependency: it must be importable.
"""

import argparse
import json
import os
import platform
import random
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

METHODS = ("simclr", "byol", "barlow-twins")
SIDES = ("ours", "lightly")
ARCH, WIDTH = "torchvision:resnet18", 512
RATE, DECAY, MOMENTUM, BYOL_MOMENTUM, OFF_DIAGONAL = 0.06, 5e-4, 0.9, 0.99, 0.0051


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--out", type=Path, default=Path("lightly-parity"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", choices=["cuda", "cpu"], required=True)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out / "results.jsonl"
    known = read(results)
    for seed in range(args.seeds):
        for method in args.methods:
            for side in SIDES:
                case = case_of(args, method, side, seed)
                if any(case.items() <= line.items() for line in known):
                    continue
                folder = args.out / "-".join(map(str, case.values())).replace(os.sep, "_")
                made = (ours if side == "ours" else theirs)(args, method, seed, folder)
                known.append({**case, **made})
                with open(results, "a") as file:
                    file.write(json.dumps(known[-1]) + "\n")
    for line in lines(args, known):
        print(line, flush=True)


def read(path: Path) -> list[dict[str, Any]]:
    """What is known; a line that a kill has cut short is made again."""
    texts = path.read_text().splitlines(keepends=True) if path.exists() else []
    whole = [text for text in texts if text.endswith("\n")]
    if whole != texts:
        path.write_text("".join(whole))
    return [json.loads(text) for text in whole]


def case_of(args: argparse.Namespace, method: str, side: str, seed: int) -> dict[str, Any]:
    return {
        "method": method, "side": side, "seed": seed, "epochs": args.epochs,
        "image_size": args.image_size, "batch_size": args.batch_size, "device": args.device,
        "data": args.data.name,
    }  # fmt: skip


def lines(args: argparse.Namespace, known: list[dict[str, Any]]) -> Iterator[str]:
    """The report: means over seeds, with their standard deviations, and the ratio of speeds."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    yield (
        f"{platform.node()}, {os.cpu_count()} cores, {gpu}; ResNet-18, {args.image_size} px, "
        f"{args.epochs} epochs of {args.data.name}, batch {args.batch_size}, {args.seeds} seeds"
    )
    for method in args.methods:
        parts, speeds = [], []
        for side in SIDES:
            cases = [case_of(args, method, side, seed) for seed in range(args.seeds)]
            found = [next(k for k in known if case.items() <= k.items()) for case in cases]
            scores = [line["knn"] for line in found if line["knn"] is not None]
            centre = f"{mean(scores):.1f}" if scores else "none"
            spread = f" ± {stdev(scores):.1f}" if len(scores) > 1 else ""
            speeds.append(mean(line["images_per_second"] for line in found))
            parts.append(f"{side} kNN {centre}{spread}, {speeds[-1]:.0f} images/s")
        yield f"{method:13} {'; '.join(parts)}: {speeds[0] / speeds[1]:.1f} × as fast"


def steps_of(args: argparse.Namespace) -> int:
    """Of all epochs, each without the images that fill no batch."""
    count = sum(1 for path in (args.data / "train").glob("*/*") if path.is_file())
    return args.epochs * (count // args.batch_size)


# ---- ours
def ours(args: argparse.Namespace, method: str, seed: int, folder: Path) -> dict[str, Any]:
    from ssl_bench import catalogue
    from ssl_bench.records.workspace import folder_of
    from ssl_bench.training.pretrain import pretrain

    kind: Any = catalogue.pretext(method)
    config = kind.Config(
        recipe="small", image_size=args.image_size, steps=steps_of(args), seed=seed,
        batch_size=args.batch_size, precision="auto",
    )  # fmt: skip
    record = pretrain(method, config, f"folder:{args.data}", folder, runtime(args))
    training: Any = record.details.training
    path = folder_of(folder, record) / "encoder.safetensors"
    return {"knn": knn(args, folder, str(path)), "images_per_second": training["images_per_second"]}


def runtime(args: argparse.Namespace) -> Any:
    from ssl_bench.runtime import Runtime

    return Runtime(workers=args.workers, devices="1")


def knn(args: argparse.Namespace, folder: Path, encoder: str, **weights: Any) -> float | None:
    """Top-1 by `knn/lightly@1` of the last layer; None where all features are the same."""
    from ssl_bench import catalogue
    from ssl_bench.errors import DataError
    from ssl_bench.evaluation.evaluate import evaluate
    from ssl_bench.evaluation.reference import Reference

    kind: Any = catalogue.evaluation("knn.lightly")
    reference = Reference(encoder, folder, **weights)
    request = kind(kind.Config()), ["pooled"]
    try:
        (record,) = evaluate([request], reference, f"folder:{args.data}", folder, runtime(args))
    except DataError as error:
        print(f"{folder.name}: {error}", flush=True)
        return None
    return record.metrics["top1"]


# ---- theirs
def theirs(args: argparse.Namespace, method: str, seed: int, folder: Path) -> dict[str, Any]:
    import torch
    from torch.optim.lr_scheduler import CosineAnnealingLR

    for draw in (torch.manual_seed, np.random.seed, random.seed):  # its transforms use all three
        draw(seed)
    backbone, outputs_of, loss_of, networks, follow = learner(method)
    for network in networks:
        network.to(args.device, memory_format=torch.channels_last).train()
    weights = [w for network in networks for w in network.parameters() if w.requires_grad]
    rate = RATE * args.batch_size / 256
    sgd = torch.optim.SGD(weights, rate, momentum=MOMENTUM, weight_decay=DECAY)
    course = CosineAnnealingLR(sgd, steps_of(args))
    halved = torch.autocast("cuda", torch.bfloat16, enabled=args.device == "cuda")
    loader, seen, began = loader_of(args, method), 0, time.monotonic()
    for _ in range(args.epochs):
        for (one, two), _labels in loader:
            views = [view.to(args.device, non_blocking=True) for view in (one, two)]
            with halved:
                outputs = outputs_of(*views)
            loss = loss_of(*(rows.float() for rows in outputs))  # in 32 bit, as ours
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            course.step()
            follow()
            seen += len(one)
    if args.device == "cuda":
        torch.cuda.synchronize()
    speed = seen / (time.monotonic() - began)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(backbone.cpu().state_dict(), folder / "resnet18.pth")
    chosen = {"weights": str(folder / "resnet18.pth"), "image_size": args.image_size}
    return {"knn": knn(args, folder, ARCH, **chosen), "images_per_second": round(speed, 1)}


def loader_of(args: argparse.Namespace, method: str) -> Any:
    """lightly's views of whole images; BYOL's two for all methods but SimCLR."""
    import lightly.transforms as views  # pyright: ignore[reportMissingImports]
    from lightly.transforms.byol_transform import BYOLView1Transform, BYOLView2Transform  # pyright: ignore[reportMissingImports]
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    size = args.image_size
    transform = (
        views.SimCLRTransform(size, cj_strength=0.5)
        if method == "simclr"
        else views.BYOLTransform(BYOLView1Transform(size), BYOLView2Transform(size))
    )
    return DataLoader(
        ImageFolder(str(args.data / "train"), transform), args.batch_size, shuffle=True,
        drop_last=True, num_workers=args.workers, pin_memory=args.device == "cuda",
        persistent_workers=args.workers > 0,
    )  # fmt: skip


def learner(
    method: str,
) -> tuple[Any, Callable[..., Any], Callable[..., Any], list[Any], Callable[[], None]]:
    """The backbone, the outputs of two views, their loss, all networks, what follows an update."""
    from lightly import loss as losses  # pyright: ignore[reportMissingImports]
    from lightly.models.modules import heads  # pyright: ignore[reportMissingImports]
    from lightly.models.utils import update_momentum  # pyright: ignore[reportMissingImports]
    from torch import nn
    from torchvision.models import resnet18

    backbone: Any = resnet18()
    backbone.fc = nn.Identity()
    if method == "byol":
        project = heads.BYOLProjectionHead(WIDTH, 4096, 256)
        predict = heads.BYOLPredictionHead(256, 4096, 256)
        students = backbone, project
        teachers = [deepcopy(each).requires_grad_(False) for each in students]
        cosine = losses.NegativeCosineSimilarity()

        def byol(one: Any, two: Any) -> Any:
            guesses = [predict(project(backbone(view))) for view in (one, two)]
            targets = [teachers[1](teachers[0](view)) for view in (one, two)]
            return *guesses, *reversed(targets)

        def both_ways(one: Any, two: Any, other: Any, another: Any) -> Any:
            return (cosine(one, other) + cosine(two, another)) / 2

        def follow() -> None:
            for student, teacher in zip(students, teachers, strict=True):
                update_momentum(student, teacher, BYOL_MOMENTUM)

        return backbone, byol, both_ways, [*students, predict, *teachers], follow
    if method == "simclr":
        head: Any = heads.SimCLRProjectionHead(WIDTH, 512, 128)
        compare: Any = losses.NTXentLoss(0.5)
    else:  # two layers, as ours and as lightly's benchmark of this set
        first = (WIDTH, 2048, nn.BatchNorm1d(2048), nn.ReLU())
        head = heads.ProjectionHead([first, (2048, 2048, None, None)])
        compare = losses.BarlowTwinsLoss(OFF_DIAGONAL)
    both = nn.Sequential(backbone, head)
    return backbone, lambda *views: map(both, views), compare, [both], lambda: None


if __name__ == "__main__":
    given = asked()
    if given.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch is imported, which each part does
    main(given)
