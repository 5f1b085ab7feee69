"""The survey of the libraries' models: what it says of one that works and of one that does not."""

import json
import sys

import pytest

from helpers import survey_models
from ssl_bench.errors import UsageError

WORKS = ("torchvision:resnet18", "torchvision resnet")


def test_a_model_that_works_is_seen_at_two_sizes():
    line = survey_models.look(*WORKS)
    assert (line["own"], line["refused"], line["other"], line["layers"]) == (224, None, 64, 8)
    assert (line["pooled"], line["keep"]) == (512, False)


def test_a_refusal_and_a_defect_are_told_apart(monkeypatch):
    def fails_by(error: Exception):
        def build(*_):
            raise error

        monkeypatch.setattr(survey_models, "build", build)
        return survey_models.look(*WORKS)

    refused, broken = fails_by(UsageError("too small")), fails_by(TypeError("a defect"))
    assert (refused["refused"], refused.get("defect")) == ("too small", None)
    assert broken["defect"].startswith("Traceback")


def test_every_family_is_seen_before_one_is_finished():
    found = survey_models.models()
    families = {family for _, family in found}
    assert {family for _, family in found[: len(families)]} == families
    assert len({arch for arch, _ in found}) == len(found)


@pytest.mark.parametrize("ready", [False, True])
def test_it_goes_on_where_it_was_stopped(ready, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(survey_models, "models", lambda: [WORKS])
    path = tmp_path / "lines.jsonl"
    if ready:
        path.write_text(json.dumps(survey_models.look(*WORKS)) + "\n")
        monkeypatch.setattr(survey_models, "look", lambda *_: pytest.fail("it was there"))
    monkeypatch.setattr(sys, "argv", ["survey", str(path)])
    survey_models.main()
    assert len(path.read_text().splitlines()) == 1
    monkeypatch.setattr(sys, "argv", ["survey", str(path), "--table"])
    survey_models.main()
    assert "| torchvision resnet | 1 | 1 | 1 | 8 | 1 | 0 | 1 at 64 |  |" in capsys.readouterr().out
