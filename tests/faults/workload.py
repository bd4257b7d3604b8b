"""The work that faults are put into: small runs of the real command, each in a forked child that may be killed.

The parent has imported everything, so that a child begins at once. A child logs, line by line and unbuffered, which
stage it is in and which unit of work it begins: a block of the pass, a block of gradients, a batch of answers.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from unittest.mock import patch

import forked

COMMON = [
    "model=tiny_qwen2_vl", "calibration.samples=4", "calibration.tokens_per_batch=400", "evaluation.limit=12",
    "evaluation.batch_size=4", "evaluation.max_empty_share=1", "tracking=none", "threads=1",
    "+hydra.callbacks.closing_table.figures=0",
]  # fmt: skip
GRID = ["equalization.points=3", "equalization.step=0.5"]
RUNS = {
    "mbq": ["method=mbq", "quant=w3a16", *GRID],
    "qig": ["method=qig", "quant=w4a8", "sensitivity.reference=quantized", *GRID],
    "gptq": ["method=gptq_qig", "quant=w3a16"],
    "vlmq": ["method=vlmq", "quant=w3a16"],
}
"""MBQ and VLMQ read whole-model gradients, QIG and the second attribute, the last two round with Hessians."""


def warm() -> None:
    """Import what a run needs, and draw the benchmark's pictures; children may be forked, since no thread is begun."""
    import torch

    import qig.__main__
    import qig.calibrate
    import qig.report.closing
    from qig.config import register
    from qig.evaluation.containment import contained

    torch.set_num_threads(1)
    register()
    with contained():
        from lmms_eval import evaluator  # noqa: F401

        import qig.evaluation.benchmark
        import qig.evaluation.chat_model
        import qig.evaluation.likelihood  # noqa: F401
    from qig.data import digitgrid
    from qig.evaluation import index
    from qig.evaluation.tasks.digitgrid import task as digitgrid_task  # noqa: F401

    digitgrid.evaluation_set = cache(digitgrid.evaluation_set)
    digitgrid.evaluation_set(seed=0, images=400, per_type=200)
    index.find("qig_digitgrid")


@dataclass
class Child(forked.Child):
    """A forked command: its process, what it said, and what it did."""

    folder: Path
    _events: Path = field(init=False)

    def __post_init__(self) -> None:
        self._events = self.folder / "events"

    def events(self) -> list[list[str]]:
        return [line.split() for line in self._events.read_text().splitlines()] if self._events.exists() else []

    def count(self) -> int:
        """Events so far, cheaply enough to be asked all the time."""
        try:
            return self._events.stat().st_size
        except FileNotFoundError:
            return 0

    def begun(self) -> list[str]:
        """Units of work, in order."""
        return [" ".join(event[1:]) for event in self.events() if event[0] == "unit"]

    def stage(self) -> str:
        """The last that it entered."""
        return next((event[1] for event in reversed(self.events()) if event[0] == "stage"), "start")

    def said(self) -> str:
        return (self.folder / "said").read_text()

    def doing(self) -> str:
        return f"{self.stage()}: {self.said()[-2000:]}"


class Bench:
    """A folder for one trial: a store, and the children that work on it."""

    def __init__(self, root: Path, store: Path | None = None) -> None:
        self.root, self.store = root, store or root / "store"
        self.children: list[Child] = []
        root.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, *more: str, inside: Callable[[], None] | None = None, cwd: Path | None = None) -> Child:
        """The command in a child; ``inside`` is called in it first."""
        folder = self.root / f"child-{len(self.children)}"
        folder.mkdir()
        main = forked.command(*COMMON, *RUNS[name], f"store={self.store}", *more)

        def work() -> None:
            with probed(folder / "events"):
                if inside is not None:
                    inside()
                main()

        child = Child(forked.start(work, cwd or folder, folder / "said", folder / "said"), folder)
        self.children.append(child)
        return child

    def run(self, name: str, *more: str, **options) -> Child:
        """The command to its end."""
        child = self.start(name, *more, **options)
        child.wait()
        return child

    def clear(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


@contextmanager
def probed(file: Path):
    """Log stages and units of work."""
    from qig.blockwise import run as block_pass
    from qig.blockwise.timing import Stopwatch
    from qig.evaluation.journal import Journal
    from qig.sensitivity import gradients
    from qig.sensitivity.kept_gradients import KeptGradients
    from qig.store import Store

    number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(*words: object) -> None:
        os.write(number, (" ".join(map(str, words)) + "\n").encode())

    stopwatch, make, work_run, through = Stopwatch.__call__, Store.make, block_pass.BlockWork.run, gradients._through
    append, add, save = Journal._append, KeptGradients.add, block_pass.save_block
    kinds: list[str] = []

    @contextmanager
    def timed(self, name):
        say("stage", name)
        with stopwatch(self, name):
            yield
        say("stage", "between")

    def made(self, kind, key, build, **options):
        def built(folder):
            say("stage", "record" if kind == "runs" else kind)
            kinds.append(f"{kind}/{key}")
            build(folder)
            kinds.pop()
            say("stage", "record" if kind == "runs" else "publishing")

        return make(self, kind, key, built, **options)

    def block(self):
        say("unit", kinds[-1], "block", self.index)
        work_run(self)

    def backward(streams, index, batch, *rest):
        if batch == 0:
            say("stage", "gradient")
            say("unit", kinds[-1], "block", index)
        return through(streams, index, batch, *rest)

    def kept(self, phase, name, work):
        def begun(position, batch):
            say("stage", phase)
            say("unit", kinds[-1], phase, position)
            return work(position, batch)

        return original_kept(self, phase, name, begun)

    def saying(function, word):
        def said(*arguments):
            say("stage", word)
            function(*arguments)
            say("stage", f"after-{word}")

        return said

    original_kept = Journal.kept
    with (
        patch.object(Stopwatch, "__call__", timed),
        patch.object(Store, "make", made),
        patch.object(block_pass.BlockWork, "run", block),
        patch.object(block_pass, "save_block", saying(save, "saving")),
        patch.object(gradients, "_through", backward),
        patch.object(KeptGradients, "add", saying(add, "saving-gradient")),
        patch.object(Journal, "kept", kept),
        patch.object(Journal, "_append", saying(append, "saving-batch")),
    ):
        yield
