"""Which runs a command takes where no encoder is named: the newest of each method that are alike.

Encoders of other images, another network or a longer training are not compared by accident: all
methods are taken as the newest run was pretrained, and where a method has no such run, its newest
one is taken and what differs is said. Each run that is taken is a line.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ssl_bench import catalogue
from ssl_bench.encoders.build import EncoderSpec, build_encoder
from ssl_bench.encoders.encoder import Encoder
from ssl_bench.errors import UsageError
from ssl_bench.evaluation.harness import Harness, Subject, wanted_layers
from ssl_bench.evaluation.reference import Reference
from ssl_bench.progress import say
from ssl_bench.records.budget import described, is_trained
from ssl_bench.records.record import PretrainRecord
from ssl_bench.records.workspace import read_records
from ssl_bench.runtime import is_main_process

Check = Callable[[Encoder], None]  # raises UsageError for an encoder that cannot be measured


def default_encoders(workspace: Path, check: Check | None = None) -> list[str]:
    """References to one run of every method; UsageError where there is none.

    Runs whose encoder `check` refuses are left out, with a line for each method's newest one.
    """
    runs = _finished(workspace)
    if not runs:
        raise UsageError(
            f"no pretrained encoder in {workspace}: `bench pretrain METHOD` makes one, "
            "or name one with --encoder"
        )
    refusals = _refusals(runs, check)
    fitting = [run for run in runs if run.key not in refusals]
    if not fitting:
        raise UsageError(refusals[runs[-1].key])
    taken = _alike(fitting)
    for run in {run.method: run for run in runs if run.key in refusals}.values():
        older = next((t for t in taken if t.method == run.method), None)
        if older is None or runs.index(run) > runs.index(older):
            _say(f"{run.reference} is left out: {refusals[run.key]}")
    return [run.reference for run in taken]


def _finished(workspace: Path) -> list[PretrainRecord]:
    """All but the encoders that were kept on the way: those are taken by name only."""
    return [run for run in read_records(workspace, "pretrain") if not run.identity.kept]


def newest_that_inpaints(workspace: Path) -> str:
    """A reference to the newest finished run whose pretext fills holes, which is said."""
    runs = [r for r in _finished(workspace) if hasattr(catalogue.find("pretext", r.method), "fill")]
    if not runs:
        raise UsageError(
            f"no run in {workspace} fills holes: `bench pretrain inpainting` makes one, or name "
            "one with --encoder"
        )
    _say(described(runs[-1]))
    return runs[-1].reference


def opened(text: str, workspace: Path, **options: Any) -> Reference:
    """A named encoder; of a method it is said which of its runs is taken."""
    found = Reference(text, workspace, **options)
    if found.run and "@" not in text:
        _say(described(found.run))
    return found


def measurable(
    references: Sequence[Reference], harness: Harness, layers: Sequence[str]
) -> list[Reference]:
    """Those that a harness takes; the others are said. Raises its UsageError if it takes none."""
    taken, refusals = list[Reference](), dict[str, UsageError]()
    for it in references:
        wanted = wanted_layers(harness, it.encoder, layers)
        try:
            harness.points(Subject(it.encoder, it.spec, wanted, it.pretext), it.name)
        except UsageError as error:
            refusals[it.name] = error
        else:
            taken.append(it)
    if not taken and refusals:
        raise next(iter(refusals.values()))
    for name, error in refusals.items():
        _say(f"{name} is left out: {error}")
    return taken


def _say(text: str) -> None:
    if is_main_process():
        say(text)


def _refusals(runs: Sequence[PretrainRecord], check: Check | None) -> dict[str, str]:
    """Why an encoder cannot be measured, by the keys of these runs."""
    if check is None:
        return {}
    found, known = dict[str, str](), dict[str, str | None]()
    for run in runs:
        spec = repr(run.details.encoder.spec)
        if spec not in known:
            known[spec] = _refusal(run, check)
        if reason := known[spec]:
            found[run.key] = reason
    return found


def _refusal(run: PretrainRecord, check: Check) -> str | None:
    """Looked up on a network without numbers: nothing is loaded."""
    try:
        with torch.device("meta"):
            encoder = build_encoder(EncoderSpec.model_validate(run.details.encoder.spec))
        check(encoder)
    except UsageError as error:
        return str(error)
    except ValueError:
        return "its record describes no encoder"
    return None


# ---- which are alike
def _alike(runs: Sequence[PretrainRecord]) -> list[PretrainRecord]:
    """One run of every method, by name, each said; `runs` are oldest first."""
    leader = runs[-1]
    trained = [run for run in runs if is_trained(run)]
    if not is_trained(leader) and trained:  # random weights have no budget to be like
        leader = next((run for run in reversed(trained) if not _unlike(run, leader)), trained[-1])
    taken = []
    for method in sorted({run.method for run in runs}):
        own = [run for run in reversed(runs) if run.method == method]
        found = next((run for run in own if not _unlike(run, leader)), own[0])
        differing = " and ".join(_unlike(found, leader))
        _say(
            described(found) + (f"; unlike {leader.reference} in {differing}" if differing else "")
        )
        taken.append(found)
    return taken


def _unlike(run: PretrainRecord, leader: PretrainRecord) -> list[str]:
    """In what two runs were pretrained otherwise; a length is of those that have one."""
    mine, theirs = _pretraining(run), _pretraining(leader)
    return [name for name in mine if name in theirs and mine[name] != theirs[name]]


def _pretraining(run: PretrainRecord) -> dict[str, Any]:
    settings = run.identity.config
    found: dict[str, Any] = {
        "network": (settings.get("arch"), settings.get("width"), settings.get("norm")),
        "starting weights": settings.get("start"),
        "image size": settings.get("image_size"),
        "normalisation": run.details.encoder.spec.get("normalization"),
    }
    if is_trained(run):  # the random row is the same whatever the images
        found["images"] = run.identity.data
    if "steps" in settings:
        found["length"] = settings["steps"] * settings.get("batch_size", 1)
    return found
