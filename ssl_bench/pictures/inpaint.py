"""Fills holes in a user's own images of any size with a pretext that inpaints.

A network sees one size only, so each hole gets a window: a square around it, as large as the
network's input where the image and the hole allow, else larger (or smaller) and resized. Holes that
lie close together are one; the others in a window are the mean colour of what is known there, until
their turn. What is put back is the hole's content alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ssl_bench.data.tree import SUFFIXES, LeftOut, images_below
from ssl_bench.errors import DataError, UsageError, extra
from ssl_bench.evaluation.reference import Reference
from ssl_bench.pictures.photograph import Photograph, read_photograph
from ssl_bench.progress import say
from ssl_bench.runtime import best_device
from ssl_bench.training.pretext import Inpaints

with extra("inpaint"):
    import cv2

CENTRAL = "central"
CENTRAL_SHARE = 50 / 128  # of the short side, at most: the central hole
QUARTER = 0.25  # of a window: the most that random masks drop
SMALLEST = 32  # px; a smaller image has no context
JOINED = 16  # holes nearer to each other than the short side over this are one
GROWTH = 1.05  # from one window that is tried to the next


@dataclass(frozen=True)
class Filled:
    """One file: what became of it, and where."""

    source: Path
    target: Path | None
    outcome: str


def photographs_in(paths: Sequence[Path]) -> list[Path]:
    """The files, and those of the folders, in order. UsageError for a path that is neither."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            left = LeftOut()
            inside = images_below(path, left)
            if not inside:
                raise UsageError(f"{path} has no images ({', '.join(SUFFIXES)})")
            for note in left.notes():
                say(f"{path}: {note}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise UsageError(f"there is no image {path}")
    return list(dict.fromkeys(found))


def inpaint(sources: Sequence[Path], encoder: Reference, mask: str, out: Path) -> Iterator[Filled]:
    """Fill a hole in each image and write `out`/NAME.png; yield what became of it.

    `mask` is `central`, or a file that is white where images of its size have a hole. A bad image
    is yielded without a target; the others go on. Raises UsageError for a pretext that does not
    inpaint, a mask that cannot be used at all, or a target that is one of the sources.
    """
    filler = Filler(encoder)
    hole = None if mask == CENTRAL else read_mask(Path(mask))
    targets = _targets(sources, out, [] if mask == CENTRAL else [Path(mask)])
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write to {out}: {error.strerror}") from error
    for source, target in zip(sources, targets, strict=True):
        try:
            photograph = read_photograph(source)
            filled, outcome = filler.filled(photograph, _hole_of(photograph, hole, mask))
            filled.save(target)
        except DataError as error:
            text = str(error)
            yield Filled(source, None, text if str(source) in text else f"{source}: {text}")
        else:
            yield Filled(source, target, outcome)


def _targets(sources: Sequence[Path], out: Path, kept: Sequence[Path]) -> list[Path]:
    """One PNG each, by the source's name, with its suffix where two share the rest.

    None takes the place of a source or of another file that is `kept`.
    """
    stems = [source.stem for source in sources]
    names = [
        (s.stem if stems.count(s.stem) == 1 else s.name.replace(".", "-")) + ".png" for s in sources
    ]
    for source, name in zip(sources, names, strict=True):
        if names.count(name) > 1:
            raise UsageError(f"two images would be {out / name}: rename {source}")
        read = [path for path in (*sources, *kept) if path.exists()]
        if (out / name).exists() and any((out / name).samefile(path) for path in read):
            raise UsageError(f"{out / name} is read from: choose another --out")
    return [out / name for name in names]


# ---- holes
def read_mask(path: Path) -> np.ndarray:
    """bool (H, W): where the file is brighter than half. UsageError if it cannot be a mask."""
    if not path.is_file():
        raise UsageError(f"there is no mask {path}: give --mask a file, or `{CENTRAL}`")
    try:
        hole = read_photograph(path).rgb.mean(2) > 0.5
    except DataError as error:
        raise UsageError(f"--mask: {error}") from error
    if not hole.any():
        raise UsageError(f"mask {path} has no hole: paint it white where the image is missing")
    return hole


def _hole_of(photograph: Photograph, hole: np.ndarray | None, mask: str) -> np.ndarray:
    height, width = photograph.size
    if min(height, width) < SMALLEST:
        raise DataError(
            f"{width}×{height} px is too small: a hole needs a context of {SMALLEST} px"
        )
    if hole is None:
        side = int(CENTRAL_SHARE * min(height, width))
        side -= (min(height, width) - side) % 2  # else it lies beside the middle
        top, left = (height - side) // 2, (width - side) // 2
        hole = np.zeros((height, width), bool)
        hole[top : top + side, left : left + side] = True
        return hole
    if hole.shape != photograph.size:
        raise DataError(
            f"the image is {width}×{height} px, mask {mask} is {hole.shape[1]}×{hole.shape[0]}: "
            "a mask has the size of its image"
        )
    return hole


def joined_holes(hole: np.ndarray) -> Iterator[np.ndarray]:
    """The holes, bool (H, W) each, of which those that lie close together are one."""
    reach = max(1, min(hole.shape) // JOINED)
    # Dilated by the distance, holes nearer than it touch and get one label.
    joined = cv2.dilate(hole.astype(np.uint8), np.ones((reach, reach), np.uint8))
    count, labels = cv2.connectedComponents(joined, connectivity=8)
    return (hole & (labels == i) for i in range(1, count))  # label 0 is no hole


# ---- windows
@dataclass(frozen=True)
class Window:
    """A square of the image, px."""

    top: int
    left: int
    side: int

    def of(self, values: np.ndarray) -> np.ndarray:
        """The part of an array (H, W, …) that lies in it."""
        return values[self.top : self.top + self.side, self.left : self.left + self.side]

    def resized(self, part: np.ndarray, size: int) -> np.ndarray:
        """Its content (side, side, …), float32, at size×size: area means, bilinear if it grows."""
        how = cv2.INTER_AREA if self.side > size else cv2.INTER_LINEAR
        part = np.ascontiguousarray(part, dtype=np.float32)
        return part if self.side == size else cv2.resize(part, (size, size), interpolation=how)

    def hidden(self, hole: np.ndarray, size: int, *, centres_only: bool = False) -> np.ndarray:
        """Which of size×size pixels are hidden, bool, for the hole's content (side, side).

        Those that the hole touches; with `centres_only`, where pixels grow, those whose centre lies
        in it: then the colour that stands in the hole shines through beside it.
        """
        if not centres_only:
            # Above 0, not a half: a pixel with any of the hole's colour in it must not be seen.
            return self.resized(hole, size) > 0
        how = cv2.INTER_NEAREST_EXACT
        return cv2.resize(hole.astype(np.uint8), (size, size), interpolation=how) > 0


def windows_for(hole: np.ndarray, size: int, reach: float) -> Iterator[Window]:
    """Windows around a hole, the best first; none where the image leaves no room.

    The hole is within the central `reach` of the window if the image's edges let it be, and takes a
    quarter of it at most. The nearer to `size` px, the better: then little is resized. Smaller
    windows can be nearer to an edge, larger ones leave room for a pixel that a resized hole gains.
    """
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    (top, bottom), (left, right) = (rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1)
    needed = max(bottom - top, right - left) / reach
    # A hole of A px takes a quarter of a square of side √(A / ¼).
    least = max(1, int(np.ceil(max(needed, (hole.sum() / QUARTER) ** 0.5))))
    room = min(hole.shape)
    wanted, side = {room, min(room, max(least, size))}, float(least)
    while side <= room:
        wanted.add(int(side))
        side = max(side + 1, side * GROWTH)
    # By the ratio to `size`: twice as large and half as large are equally far.
    for side in sorted(wanted, key=lambda s: abs(np.log(s / size))):
        if side >= least:
            start = [  # around the hole's middle, pushed back into the image at its edges
                int(np.clip(round((low + high - side) / 2), 0, length - side))
                for low, high, length in (
                    (top, bottom, hole.shape[0]), (left, right, hole.shape[1])
                )
            ]  # fmt: skip
            yield Window(start[0], start[1], side)


class Filler:
    """A trained pretext at work on photographs."""

    def __init__(self, encoder: Reference) -> None:
        pretext = encoder.pretext() if encoder.pretext else None
        if not isinstance(pretext, Inpaints):
            raise UsageError(
                f"{encoder.name} does not fill holes: name a run of a pretext that does with "
                "--encoder"
            )
        self.network: Inpaints = pretext
        self.size = encoder.spec.image_size
        self.device = best_device()
        pretext.eval().to(self.device)

    def filled(self, photograph: Photograph, hole: np.ndarray) -> tuple[Photograph, str]:
        """The photograph with its hole, bool (H, W), filled, and how it was done.

        Raises DataError for a hole that the network cannot see around.
        """
        rgb, remaining = photograph.rgb, hole.copy()
        outcomes = []
        for part in joined_holes(hole):
            window, hidden = self._window(part)
            rgb[part] = self._content(rgb, remaining, window, hidden)[window.of(part)]
            remaining &= ~part  # the next hole's window sees this one filled
            outcomes.append(self._described(part, window))
        return photograph.with_hole_filled(hole, rgb), "; ".join(outcomes)

    def _window(self, part: np.ndarray) -> tuple[Window, np.ndarray]:
        """The best window for a hole, and what is hidden in it, bool (size, size)."""
        windows = list(windows_for(part, self.size, self.network.reach))
        # First whole pixels that the hole touches; only if no window takes those, pixel centres.
        for centres_only in (False, True):
            for window in windows:
                if centres_only and window.side >= self.size:
                    continue
                hidden = window.hidden(window.of(part), self.size, centres_only=centres_only)
                if self._sees(hidden):
                    return window, hidden
        rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
        share = "quarter" if self.network.reach == 1 else f"central {self.network.reach:.0%}"
        raise DataError(
            f"a hole of {np.ptp(columns) + 1}×{np.ptp(rows) + 1} px at ({columns[0]}, {rows[0]}) "
            f"is larger, or nearer to the edge, than the network can see: it fills the {share} of "
            "a square window within the image; a network trained with --mask random-region sees "
            "most"
        )

    def _sees(self, hole: np.ndarray) -> bool:
        """Whether a hole in the window's pixels lies within the network's reach."""
        side = round(self.network.reach * self.size)
        start = (self.size - side) // 2
        outside = hole.copy()
        outside[start : start + side, start : start + side] = False
        return not outside.any()

    def _content(
        self, rgb: np.ndarray, remaining: np.ndarray, window: Window, hidden: np.ndarray
    ) -> np.ndarray:
        """What the network puts into the window, float32 (side, side, 3) in [0, 1]."""
        missing, shown = window.of(remaining), window.of(rgb).copy()
        shown[missing] = shown[~missing].mean(0)  # a quarter is missing at most
        small = window.resized(shown, self.size)
        pixels = np.round(small * 255).clip(0, 255).astype(np.uint8)
        holes = hidden.astype(np.float32)
        images = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self.device)
        found = self.network.fill(images, torch.from_numpy(holes)[None, None].to(self.device))
        content = found[0].permute(1, 2, 0).cpu().numpy()
        if window.side == self.size:
            return content
        return cv2.resize(content, (window.side, window.side), interpolation=cv2.INTER_LINEAR)

    def _described(self, part: np.ndarray, window: Window) -> str:
        rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
        hole = f"hole of {np.ptp(columns) + 1}×{np.ptp(rows) + 1} px"
        if window.side == self.size:
            return f"{hole} in a window of {window.side} px"
        return f"{hole} in a window of {window.side} px, resized to {self.size}"
