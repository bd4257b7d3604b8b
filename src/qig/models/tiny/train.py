"""``qig-train-tiny``: train one tiny model on DigitGrid, measure it on test digits, and save a full checkpoint."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import os
import sys
import time
from pathlib import Path

from qig.commands import told
from qig.errors import choices
from qig.models.tiny import TINY_MODELS

# Large blocks come back every step; without these, glibc returns them to the system each time (half the speed).
_ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
}


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _model(text: str) -> str:
    name = text.removeprefix("model=")
    if name not in TINY_MODELS:
        raise argparse.ArgumentTypeError(choices(name, TINY_MODELS, "tiny model"))
    return name


def _folder(text: str) -> Path:
    if Path(text).exists() and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a file, a folder was expected")
    return Path(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qig-train-tiny",
        description="Train a tiny vision-language model on DigitGrid and save it as a Hugging Face checkpoint, with "
        "its processor, a model card and a record of the training. Runs on the CPU, offline, in 20 to 30 minutes. "
        "Equal arguments on one thread train the same model.",
    )
    parser.add_argument("model", type=_model, metavar="model=NAME", help=f"the architecture: {', '.join(TINY_MODELS)}")
    parser.add_argument("--out", required=True, type=_folder, help="folder of the checkpoint; created if absent")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, scenes and questions (default: 0)")
    parser.add_argument("--steps", type=_positive, help="training steps (default: the recipe's, 20 to 30 minutes)")
    parser.add_argument("--alignment-steps", type=_positive, help="steps of stage 1 (default: the recipe's)")
    parser.add_argument("--test-questions", type=_positive, default=200, help="test questions per type (default: 200)")
    parser.add_argument("--threads", type=_positive, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--save-every", type=_positive, default=500, help="steps between checkpoints (default: 500)")
    return parser


def train(args: argparse.Namespace) -> dict:
    """Run the recipe; returns the training record, which is also written to ``out/training_record.json``."""
    import torch

    from qig.data.digitgrid import VOCABULARY, evaluation_set
    from qig.models.tiny.build import build_model
    from qig.models.tiny.card import model_card
    from qig.models.tiny.processors import build_processor
    from qig.models.tiny.recipe import RECIPES
    from qig.models.tiny.scoring import accuracy_of
    from qig.models.tiny.training import Trainer, versions

    torch.set_num_threads(args.threads)
    recipe = RECIPES[args.model]
    given = {"steps": args.steps, "alignment_steps": args.alignment_steps}
    recipe = dataclasses.replace(recipe, **{key: value for key, value in given.items() if value is not None})
    model, processor = build_model(args.model, args.seed), build_processor(args.model)
    items = evaluation_set(per_type=args.test_questions)
    args.out.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        copy.deepcopy(model).to(torch.float16).save_pretrained(args.out)
        (args.out / "model.safetensors").chmod(0o644)  # the writer leaves it readable by its owner only
        processor.save_pretrained(args.out)

    started, cpu_started = time.monotonic(), time.process_time()
    trainer = Trainer(model, processor, recipe, args.seed, report=lambda line: print(line, flush=True))
    trainer.align()
    for step in trainer.run():
        if step % args.save_every == 0:
            save()
    wall_seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu_started
    save()

    accuracy = accuracy_of(args.out, items)
    record = {
        "name": args.model,
        "architecture": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocabulary": len(VOCABULARY),
        "dtype": "float16",
        "seed": args.seed,
        "threads": args.threads,
        "recipe": dataclasses.asdict(recipe),
        "unlock_step": trainer.unlock_step,
        "wall_seconds": round(wall_seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "questions": len(items),
        "per_type": args.test_questions,
        "test_accuracy": accuracy,
        "test_accuracy_mean": sum(accuracy.values()) / len(accuracy),
        "curve": trainer.curve,
        "versions": versions(),
    }
    (args.out / "training_record.json").write_text(json.dumps(record, indent=1) + "\n")
    (args.out / "README.md").write_text(model_card(record))
    return record


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(arguments)
    if argv is None and any(os.environ.get(name) != value for name, value in _ALLOCATOR.items()):
        # The allocator reads its settings at start-up only.
        command = [sys.executable, "-m", "qig.models.tiny.train", *arguments]
        os.execve(sys.executable, command, os.environ | _ALLOCATOR)
    return told("qig-train-tiny", lambda: _train(args))


def _train(args: argparse.Namespace) -> None:
    record = train(args)
    for type, accuracy in record["test_accuracy"].items():
        print(f"{type:16} {accuracy:6.1%}")
    print(f"{'mean':16} {record['test_accuracy_mean']:6.1%}   saved to {args.out}")


if __name__ == "__main__":
    sys.exit(main())
