"""Weights of other projects: which of a file's tensors are the encoder's, and under which names.

A checkpoint holds more than an encoder: optimisers, heads, a second network. Names tell: of all
beginnings of names in the file (`teacher.backbone.`, `module.encoder_q.`, none) those are looked
for under which all of the encoder's own weights stand, with their shapes. What a project calls its
parts does not matter. Where names tell nothing, their order does only if it is asked for.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ssl_bench.encoders.encoder import Encoder
from ssl_bench.encoders.tensors import read_tensors
from ssl_bench.encoders.weights import check_fit, load_strictly
from ssl_bench.errors import DataError, counted, plain
from ssl_bench.progress import say

# Of several networks in a file, which one the field evaluates: DINO's and iBOT's teacher, an
# average of weights, BYOL's online network, MoCo's encoder of queries, I-JEPA's target. Before the
# last ones an unmarked one goes, as of `backbone` and `momentum_backbone`.
FIRST = ("teacher", "ema", "online|encoder_q|query", "target_encoder")
LAST = "student|momentum|encoder_k|key|target"
COUNTER = "num_batches_tracked"  # of batch normalisation: older files lack it, and no map needs it
# A token or an embedding of the network itself; those of masks and decoders are a pretext's.
TOKEN = re.compile(r"(?!mask|decoder).*(token|embed)")
Fits = dict[str, dict[str, Tensor]]  # {beginning of names: the weights that stand under it}


def load_foreign(encoder: Encoder, path: Path, under: str = "", by_order: bool = False) -> str:
    """Copy the weights that fit from another project's file; say and return what was taken.

    Nothing in the file is run. All of the encoder's own weights must be there, but for counters of
    batches and a classifier, which is zero where it does not fit. `under` is where to look: the
    beginning of names, up to a dot. Several networks that fit are ordered by `FIRST` and `LAST`.
    With `by_order`, weights of which no name fits are taken in their order (see `_by_order`).
    Raises DataError where nothing fits, or several do and no order tells.
    """
    wanted, tensors = _Wanted(encoder), read_tensors(path)
    place = under and f"{under.rstrip('.')}."
    tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(place)}
    if not tensors:
        raise DataError(f"{path} holds nothing under '{plain(under)}'")
    for find in (_by_name, _converted, _by_child, *([_by_order] if by_order else [])):
        fits, way = find(wanted, tensors)
        if fits:
            break
    else:
        raise _misfit(wanted, tensors, path)
    prefix, others = _choose(fits, wanted, path)
    state = fits[prefix]
    load_strictly(encoder, wanted.complete(state), str(path))
    taken = f"{path.name}{f', under {prefix}' if prefix else ''}: " + wanted.told(state, way)
    outside = len(tensors) - len(_under(tensors, prefix))
    taken += f"; {counted(outside, 'tensor')} elsewhere in the file" if outside else ""
    taken += "".join(f"; {other} fits too: --weights FILE:{other}" for other in others)
    say(plain(taken))
    return plain(taken)


class _Wanted:
    """What an encoder asks of a file, by the names that its library gives.

    `needed` are the weights that its maps depend on; the rest of `own` is taken where it fits.
    """

    def __init__(self, encoder: Encoder) -> None:
        own = encoder.state_dict()
        self.inner = "model." if all(name.startswith("model.") for name in own) else ""
        self.own = {name.removeprefix(self.inner): tensor for name, tensor in own.items()}
        self.head = tuple(name.removeprefix(self.inner) for name in encoder.head)
        self.needed = {
            name: tensor
            for name, tensor in self.own.items()
            if not name.startswith(self.head) and not name.endswith(COUNTER)
        }
        self.convert = encoder.convert
        parts = getattr(encoder, "model", encoder).named_children()
        self.children = {str(place): name for place, (name, _) in enumerate(parts)}
        self._parts = {_part(name) for name in self.needed}

    def strict(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What must fit exactly: the needed weights, and further parts of the same network.

        A ResNet-34 has all that a ResNet-18 asks for, and more in the same stages.
        """
        return {n: t for n, t in state.items() if n in self.needed or self._is_further(n, t)}

    def _is_further(self, name: str, tensor: Tensor) -> bool:
        if name in self.own or name.startswith(self.head) or not tensor.is_floating_point():
            return False
        return _part(name) in self._parts if "." in name else bool(TOKEN.match(name))

    def fits(self, state: Mapping[str, Tensor]) -> bool:
        try:
            check_fit(self.needed, self.strict(state), "")
        except DataError:
            return False
        return True

    def complete(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All that the encoder has, under its own names."""
        whole = {}
        for name, own in self.own.items():
            given = state.get(name)
            if given is None or given.shape != own.shape:
                given = torch.zeros_like(own)  # not what chance drew: the digest is the encoder's
            whole[self.inner + name] = given
        return whole

    def told(self, state: Mapping[str, Tensor], way: str) -> str:
        """How many weights matched, what is not there, and what was left out and why."""
        taken = [n for n, own in self.own.items() if n in state and state[n].shape == own.shape]
        told = f"{len(taken)} of {counted(len(self.own), 'tensor')} matched {way}"
        absent = [name for name in self.own if name not in set(taken)]
        if absent:
            told += f"; not in it and zero: {_listed(absent)}"
        left = [name for name in state if name not in self.own]
        misshapen = [name for name in state if name in self.own and name not in set(taken)]
        reasons = {"which the encoder lacks": left, "of another shape": misshapen}
        out = [f"{_listed(names)} ({why})" for why, names in reasons.items() if names]
        return f"{told}; left out: {', '.join(out) or 'nothing'}"


def _part(name: str) -> str:
    """`layer` of layer4.0.bn1.weight: of a part of the network, what its neighbours share."""
    return name.partition(".")[0].rstrip("0123456789")


def _listed(names: list[str]) -> str:
    """A few names, or how many there are of each part and kind."""
    if len(names) > 4 and all(name.endswith(COUNTER) for name in names):
        return f"{len(names)} counters of batches"
    if len(names) > 4:
        count = Counter(name.partition(".")[0] for name in names)
        names = [f"{part} ({number})" for part, number in count.items()]
    return ", ".join(names)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _prefixes(name: str) -> Iterator[str]:
    """All beginnings of a name that end before a part of it, the empty one first."""
    yield ""
    yield from (name[: dot.end()] for dot in re.finditer(r"\.", name))


def _matches(wanted: _Wanted, tensors: Mapping[str, Tensor]) -> Counter[str]:
    """How many names of the encoder stand under each beginning, most first."""
    return Counter(
        prefix
        for name in tensors
        for prefix in _prefixes(name)
        if name[len(prefix) :] in wanted.needed
    )


def _large(wanted: _Wanted, tensors: Mapping[str, Tensor], share: float = 1.0) -> list[str]:
    """Beginnings with as many tensors under them as the encoder needs, or a share of that."""
    count = Counter(prefix for name in tensors for prefix in _prefixes(name))
    return [prefix for prefix, n in count.items() if n >= share * len(wanted.needed)]


def _misfit(wanted: _Wanted, tensors: Mapping[str, Tensor], path: Path) -> DataError:
    """Why what comes nearest does not fit, and what else stands there."""
    found = _matches(wanted, tensors).most_common(1)
    prefix, count = found[0] if found else ("", 0)
    state = _under(tensors, prefix)
    most = f"{count} of {counted(len(wanted.needed), 'name')}"
    where = f"; nearest, with {most}, is what stands under {prefix}"
    other = _listed([name for name in state if name not in wanted.own])
    try:
        check_fit(wanted.needed, wanted.strict(state), str(path))
    except DataError as error:
        more = f"; it has {plain(other)[:200]}" if other else ""
        if _by_order(wanted, tensors)[0]:
            more += f"; in their order all fit: --weights order:{path.name} takes them so"
        return DataError(f"{error}{plain(where) if prefix else ''}{more}")
    raise AssertionError("what does not fit has a reason")


# ---- four ways in which weights may fit
def _by_name(wanted: _Wanted, tensors: Mapping[str, Tensor]) -> tuple[Fits, str]:
    fits = {}
    for prefix, count in _matches(wanted, tensors).items():
        state = _under(tensors, prefix)
        if count == len(wanted.needed) and wanted.fits(state):
            fits[prefix] = state
    return fits, "by name"


def _converted(wanted: _Wanted, tensors: Mapping[str, Tensor]) -> tuple[Fits, str]:
    """As the library itself converts what other projects wrote; position embeddings included."""
    fits, fitted = {}, set[str]()
    for prefix in _large(wanted, tensors, 0.5):  # some layouts have fewer tensors, or more
        state = _under(tensors, prefix)
        try:
            made = wanted.convert(dict(state))
        except Exception:  # whatever a library meets in weights of another network
            continue
        if _is_resampled_kernel(state, made) or not wanted.fits(made):
            continue
        fits[prefix] = made
        # Of positions only: where a library renames, one name may stand for another weight.
        both = {name for name in made.keys() & state.keys() if "pos" in name}
        fitted |= {name for name in both if made[name].shape != state[name].shape}
    changed = f" ({_listed(sorted(fitted))} made to fit)" if fitted else ""
    return fits, f"as the library converts them{changed}"


def _is_resampled_kernel(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> bool:
    """Whether a patch embedding was made to fit other patches: that is another network."""
    kernels = {tuple(t.shape[2:]) for t in before.values() if t.ndim == 4}
    sizes = {t.numel() for t in before.values()}
    return any(
        t.ndim == 4 and "pos" not in n and tuple(t.shape[2:]) not in kernels
        and t.numel() not in sizes
        for n, t in after.items()
    )  # fmt: skip


def _by_child(wanted: _Wanted, tensors: Mapping[str, Tensor]) -> tuple[Fits, str]:
    """Of `nn.Sequential(*network.children())`, as lightly's: `4.0.conv1` is layer1.0.conv1."""
    fits = {}
    for prefix in _large(wanted, tensors):
        state = _under(tensors, prefix)
        parts = ((name.partition("."), tensor) for name, tensor in state.items())
        named = {f"{wanted.children.get(n, n)}{dot}{rest}": t for (n, dot, rest), t in parts}
        if len(named) == len(state) and wanted.fits(named):
            fits[prefix] = named
    return fits, "by the place of the part that they are of"


def _by_order(wanted: _Wanted, tensors: Mapping[str, Tensor]) -> tuple[Fits, str]:
    """Under other names: the same kinds and shapes in the same order, and not one name shared.

    A kind is a name's last part (weight, bias, running_mean …). At most a final linear layer may be
    left over: the classifier.
    """
    # Two layers of one shape that another project defines in another order would be exchanged
    # unseen: nothing tells them apart. Hence only where not one name is shared, and where every
    # kind and shape stands at its place, as in a network that was renamed part by part.
    fits = {}
    for prefix in _large(wanted, tensors):
        state = _under(tensors, prefix)
        counted = any(name.endswith(COUNTER) for name in state)
        asked = {
            name: tensor
            for name, tensor in wanted.own.items()
            if name in wanted.needed or (counted and name.endswith(COUNTER))
        }
        over = list(state)[len(asked) :]
        kinds = [(n.rpartition(".")[2], state[n].ndim) for n in over]
        if state.keys() & wanted.own.keys() or kinds not in ([], [("weight", 2), ("bias", 1)]):
            continue
        if _kinds(state)[: len(asked)] == _kinds(asked):
            named = dict(zip(asked, state.values(), strict=False))
            if wanted.fits(named):
                fits[prefix] = named | {name: state[name] for name in over}
    return fits, "by order, kind and shape"


def _kinds(state: Mapping[str, Tensor]) -> list[tuple[str, tuple[int, ...]]]:
    return [(name.rpartition(".")[2], tuple(tensor.shape)) for name, tensor in state.items()]


# ---- which of several
def _choose(fits: Fits, wanted: _Wanted, path: Path) -> tuple[str, list[str]]:
    """The one to take, and the others that hold other weights. DataError if no order tells."""
    different: list[str] = []
    for prefix in sorted(fits, key=lambda prefix: (_rank(prefix), len(prefix))):
        if not any(_equal(fits[prefix], fits[other], wanted) for other in different):
            different.append(prefix)
    first, *others = different
    if others and _rank(others[0]) == _rank(first):
        raise DataError(
            f"{path} holds several networks that fit, under {plain(', '.join(different))}: name "
            f"one, as in --weights {path.name}:{plain(first.rstrip('.') or 'PREFIX')}"
        )
    return first, others


def _rank(prefix: str) -> int:
    for rank, words in enumerate((*FIRST, LAST)):
        if re.search(rf"(?<![a-z])(?:{words})(?![a-z])", prefix):
            return rank if words != LAST else len(FIRST) + 1
    return len(FIRST)


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor], wanted: _Wanted) -> bool:
    return all(torch.equal(one[name], other[name]) for name in wanted.needed)
