"""Rows of one name that are not one row: told apart by the digest of their encoders' weights.

A name says what tells the settings of rows apart. Two weights files may have one name in two
folders, a library's weights may change with its version, and a run that was made on two machines
has two sets of weights.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ssl_bench.files import key_of
from ssl_bench.records.record import EvaluationRecord

SHOWN = 6  # hexadecimal digits of a digest
Slot = tuple[str, int, int | None]  # a name, a seed of pretraining, a version of the pretext
Content = tuple[str, str]  # digest of the weights, and what else builds the encoder


def distinct_rows(records: Sequence[EvaluationRecord], names: Sequence[str]) -> list[str]:
    """The rows' names, with a mark where one name stands for encoders of other weights.

    Seeds of one row have weights of their own. Of one seed, the newest weights make one row, those
    before them another. An older version of a pretext is the same row: the newest number stands.
    """
    slots = [_slot(record, name) for record, name in zip(records, names, strict=True)]
    contents = [content_of(record) for record in records]
    # Newest first; a dict keeps the order. The place of an encoder among them is its row.
    known: dict[Slot, dict[Content, int]] = defaultdict(dict)
    for slot, content in zip(reversed(slots), reversed(contents), strict=True):
        known[slot].setdefault(content, len(known[slot]))
    rows: dict[str, dict[int, list[Content]]] = defaultdict(lambda: defaultdict(list))
    for slot in sorted(known, key=lambda slot: (slot[1], slot[2] or 0)):
        for content, place in known[slot].items():
            rows[slot[0]][place].append(content)
    marks = {name: _marks(places) for name, places in rows.items() if len(places) > 1}
    return [
        f"{slot[0]} {marks[slot[0]][known[slot][content]]}".rstrip()
        if slot[0] in marks
        else slot[0]
        for slot, content in zip(slots, contents, strict=True)
    ]


def _slot(record: EvaluationRecord, name: str) -> Slot:
    return name, record.pretraining.get("seed", 0), record.details.pretext_version


def content_of(record: EvaluationRecord) -> Content:
    """What an encoder is, whatever it is called; of a row without one, the size of its images."""
    encoder = record.identity.encoder
    if encoder is None:
        size = record.identity.image_size
        return "", f"{size} px" if size else ""
    return encoder.weights, json.dumps(encoder.spec, sort_keys=True)


def _marks(rows: Mapping[int, Sequence[Content]]) -> dict[int, str]:
    """What stands behind the name of each row, by the weights of its first seed."""
    firsts = {place: contents[0] for place, contents in rows.items()}
    short = {place: weights[:SHOWN] for place, (weights, _) in firsts.items()}
    if len(set(short.values())) == len(short) and all(short.values()):
        return short
    # The same weights at another size, or no weights at all.
    return {
        place: rest if not weights else key_of({"rows": rows[place]})[:SHOWN]
        for place, (weights, rest) in firsts.items()
    }
