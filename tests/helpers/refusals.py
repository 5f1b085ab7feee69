"""What a refusal looks like, for the tests of bad input.

One line at the end of stderr names the thing and the remedy; exit code 2 is a request that cannot
be met, 1 is data that are not what they should be; finished runs stay as they were.
"""

from pathlib import Path

from safetensors.torch import load_file

from helpers.bench import Result

SCENES = ("--data", "scenes:train=60,test=20")
TOY = ("--image-size", "64", "--width", "0.1", "--workers", "0")
STEPS = ("--steps", "4", "--batch-size", "4")
PRETRAIN = ("pretrain", "context-encoder", *TOY, *STEPS)
PROBE = ("linear-probe", "--workers", "0", "--strengths", "2")
FEW = ("finetune", "--protocol=linear-head")
FINETUNE = (*FEW, "--workers", "0", "--steps", "2", "--batch-size", "4")


def fails(result: Result, code: int, *parts: str) -> None:
    """One line at the end of stderr says it all, and the exit code tells whose fault it is."""
    lines = result.err.rstrip("\n").splitlines()
    assert lines, result
    assert result.code == code, result
    assert lines[-1].startswith(("bench: ", "Error: ")), result.err
    assert not any(line.startswith(("bench: ", "Error: ")) for line in lines[:-1]), result.err
    assert "Traceback" not in result.err
    for part in parts:
        assert part in lines[-1], f"{part!r} is not in {lines[-1]!r}"


def contents(folder: Path) -> dict[Path, bytes]:
    """Every finished run's files, byte by byte."""
    runs = [record.parent for record in folder.glob("*/*/record.json")]
    return {file: file.read_bytes() for run in runs for file in run.rglob("*") if file.is_file()}


def only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    assert len(found) == 1, found
    return found[0]


def half_written(folder: Path) -> list[Path]:
    """Scratch files, and weights that cannot be read."""
    left = [p for p in folder.rglob("*") if "writing" in p.name or "decoding" in p.name]
    for path in folder.rglob("*.safetensors"):
        try:
            load_file(path)
        except Exception:  # whatever is wrong with it
            left.append(path)
    return left
