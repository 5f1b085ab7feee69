"""The form of a record: what tables, comparisons and reruns take from it without asking.

A record may come from anybody. One that lacks what is used, or has it in another type, is refused
as it is read, with its name, and not by whatever meets it later.
"""

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Digits = Annotated[int, Field(ge=0, le=9)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Identity(_Form):
    config: dict[str, Any]


class _EvaluationIdentity(_Identity):
    protocol: str
    layer: str
    data: dict[str, str]
    encoder: dict[str, Any] | None = None


class _Encoder(_Form):
    spec: dict[str, Any]
    digest: str
    start: str


class _PretrainDetails(_Form):
    encoder: _Encoder
    skipped_images: list[str]


class _EvaluationDetails(_Form):
    protocol: str
    metric: str
    shown: list[str] = []
    column: str | None = None
    asked_layer: str | None = None
    encoder: str | None = None
    units: dict[str, str] = {}
    digits: dict[str, Digits] = {}
    lower: list[str] = []
    interval: str = ""
    test_images: int
    skipped_images: list[str]
    duplicates: list[str] = []
    pretraining: dict[str, Any] | None = None
    pretraining_data: str | None = None
    pretraining_digest: str | None = None


class _Control(_Form):
    chance: float
    spread: float
    z: float


def check_form(record: Mapping[str, Any]) -> None:
    """ValueError for a record, as JSON has it, that no command could use."""
    identity, details, metrics = record["identity"], record["details"], record["metrics"]
    if any(unicodedata.category(c) == "Cc" for text in _texts(dict(record)) for c in text):
        raise ValueError("a text with control characters")
    if record["kind"] == "pretrain":
        _Identity.model_validate(identity)
        _PretrainDetails.model_validate(details)
        return
    _EvaluationIdentity.model_validate(identity)
    found = _EvaluationDetails.model_validate(details)
    for metric in {found.metric, *found.shown}:
        if metric not in metrics or (f"{metric}_low" in metrics) != (f"{metric}_high" in metrics):
            raise ValueError(f"no {metric}, or half of its interval")
    if "control" in identity:
        _Control.model_validate(details.get("control"))


def _texts(value: Any) -> Iterator[str]:
    """All names and texts in a JSON value."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str):
        yield value
