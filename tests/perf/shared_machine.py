"""Training beside processes that hold a core each: threads that sleep soon against OpenMP's own.

    python tests/perf/shared_machine.py                # 5 repetitions of 30 updates each
    python tests/perf/shared_machine.py 1 2 64         # a quick look: 1 of 2, at 64 px

The context encoder on AlexNet of half width, batch 64, 96 px, by the library's own loop. Two
processes train in turn, one with what ssl_bench/threads.py sets and one without, alone, then beside
one and two processes of one thread that never stop. The ratio is to OpenMP's own alone in the same
repetition; the median of the repetitions is printed. A machine that is busy already tells nothing.
"""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from ssl_bench.threads import COUNT, SPINS, set_threads

AIMS = (97, 50, 30)  # percent of the speed alone, by the number of busy processes
KINDS = ("own", "ours")  # OpenMP's first: what it does alone is 100 %
BUSY = "while True: pass"


def lines(repetitions: int = 5, steps: int = 30, size: int = 96) -> Iterator[str]:
    """The report."""
    found: dict[tuple[int, str], list[float]] = {}
    with ExitStack() as stack:
        trainings = {kind: stack.enter_context(training(kind, steps, size)) for kind in KINDS}
        for _ in range(repetitions):
            alone = 0.0
            for busy in range(len(AIMS)):
                with ExitStack() as others:
                    for _ in range(busy):
                        others.enter_context(running([sys.executable, "-c", BUSY]))
                    for kind, process in trainings.items():
                        speed = speed_of(process)
                        alone = alone or speed
                        found.setdefault((busy, kind), []).append(100 * speed / alone)
    yield f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {load()}"
    for busy, aim in enumerate(AIMS):
        own, ours = (median(found[busy, kind]) for kind in KINDS)
        yield f"beside {busy} busy: OpenMP's own {own:.0f} %, ours {ours:.0f} %; aim: ≥ {aim} %"


def load() -> str:
    """Of the last minute, when the processes here were among it."""
    return f"{os.getloadavg()[0]:.1f}"


@contextmanager
def running(command: list[str], **variables: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that ends with the block."""
    environment = {k: v for k, v in os.environ.items() if k not in (SPINS, "OMP_WAIT_POLICY")}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env=environment | variables,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def training(kind: str, steps: int, size: int) -> Iterator["subprocess.Popen[str]"]:
    """A process that trains for so many steps whenever it is asked to; warm."""
    os.environ.pop(COUNT, None)
    with running([sys.executable, __file__, kind, str(steps), str(size)]) as process:
        speed_of(process)
        yield process


def speed_of(process: "subprocess.Popen[str]") -> float:
    """Images a second."""
    assert process.stdin
    assert process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def train_when_asked(steps: int, size: int) -> None:
    """In a process of its own, whose OpenMP is as its variables say when torch is imported."""
    import torch

    from pretext.context_encoder import ContextEncoderConfig
    from ssl_bench.data.normalization import HALF
    from ssl_bench.data.store.squares import stored_size
    from ssl_bench.runtime import Runtime
    from ssl_bench.training.build import build_pretext
    from ssl_bench.training.loop import train

    side = stored_size(size)

    class Grey:
        def __len__(self) -> int:
            return 64

        def batch(self, which: object, /) -> dict[str, torch.Tensor]:
            return {"images": torch.full((64, 3, side, side), 128, dtype=torch.uint8)}

    config = ContextEncoderConfig(
        image_size=size, width=0.5, batch_size=64, steps=steps, precision="32"
    )
    runtime = Runtime(workers=0, devices="1", checkpoint_steps=10 * steps)
    for _ in sys.stdin:
        task, _ = build_pretext("context-encoder", config, HALF)
        with tempfile.TemporaryDirectory() as folder:
            report = train(task, Grey(), config, 0, runtime, Path(folder))
        print(report.images_per_second, flush=True)


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in KINDS:
        if sys.argv[1] == "ours":
            set_threads()
        train_when_asked(*map(int, sys.argv[2:]))
    else:
        for line in lines(*map(int, sys.argv[1:])):
            print(line, flush=True)
