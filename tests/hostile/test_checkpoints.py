"""Checkpoints and logs that a training cannot go on from are named."""

from typing import Any

import pytest
import torch

from helpers.hostile import Change, answered, go_on, refused


def _shrink(saved: dict[str, Any]) -> None:
    """The optimiser's memory gets other shapes than its weights."""
    for state in saved["optimizers"][0]["state"].values():
        for name, value in state.items():
            state[name] = torch.zeros(1) if value.ndim else value


CHECKPOINTS: dict[str, Change] = {
    "a step far beyond": lambda saved: saved.update(step=10**9),
    "a step before the first": lambda saved: saved.update(step=-3),
    "no number of a step": lambda saved: saved.update(step=float("inf")),
    "no optimiser": lambda saved: saved.update(optimizers=[None]),
    "a state of another form": lambda saved: saved["optimizers"][0].update(state=5),
    "other shapes": _shrink,
    "no rate": lambda saved: saved["optimizers"][0]["param_groups"][0].update(lr="x", betas=5),
    "no times": lambda saved: saved.update(clock=["a", "b", "c"]),
    "losses of another form": lambda saved: saved.update(last="abc"),
    "no weights": lambda saved: saved["task"].update({n: n for n in saved["task"]}),
    "complex weights": lambda saved: saved["task"].update(
        {n: t * 1j for n, t in saved["task"].items() if t.is_floating_point()}
    ),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_checkpoint_that_cannot_be_gone_on_from_is_named(bench, stopped, kind):
    path = stopped / "checkpoint.pt"
    saved = torch.load(path, weights_only=True)
    CHECKPOINTS[kind](saved)
    torch.save(saved, path)
    refused(go_on(bench, stopped), path)
    assert not (stopped / "record.json").exists()


LOGS = [b"hello\n", b"[1]\n", b"{}\n", b"5\n", b"[" * 100_000 + b"\n", b"\xff\xfe\n"]


@pytest.mark.parametrize("content", LOGS, ids=lambda content: repr(content[:6]))
def test_a_log_of_another_form_is_named_or_let_be(bench, stopped, content):
    (stopped / "log.jsonl").write_bytes(content)
    answered(go_on(bench, stopped), stopped / "log.jsonl")
