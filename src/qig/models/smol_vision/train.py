"""``python -m qig.models.smol_vision.train``: train tower, projector and LoRA; save them, and what they reach."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from qig.commands import told
from qig.models.smol_vision import NAME


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qig.models.smol_vision.train",
        description="Teach DigitGrid to a vision-language model on SmolLM2-135M. Stage `see`: tower and projector say "
        "what a picture shows in word embeddings. Stage `read`: a LoRA of the language model answers from such words. "
        "Stage `together`: all of it answers from pictures. The first two can be trained side by side, 80 and 60 "
        "minutes of one core. Needs `make smol-text` first.",
    )
    parser.add_argument("stage", choices=("see", "read", "together"))
    parser.add_argument("--out", required=True, type=Path, help="folder of what is trained; created if absent")
    parser.add_argument("--start", type=Path, nargs="+", default=[], help="folders of earlier trainings to go on from")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, scenes and questions (default: 0)")
    parser.add_argument("--steps", type=int, help="default: the recipe's")
    parser.add_argument("--images", type=int, help="a step, each with about 12 questions (default: the recipe's)")
    parser.add_argument("--learning-rate", type=float, help="its peak (default: the recipe's)")
    parser.add_argument("--unlocked", action="store_true", help="all question types from the beginning")
    parser.add_argument("--test-questions", type=int, default=50, help="test questions per type (default: 50)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--save-every", type=int, default=50, help="steps between savings (default: 50)")
    return parser


def train(args: argparse.Namespace) -> dict:
    """Run the stage's recipe; returns the record, which is also written to ``out/training_STAGE.json``.

    Raises:
        ModelError: the base has not been fetched.
    """
    import torch

    from qig.models import packaged
    from qig.models.packaged.descriptions import describe
    from qig.models.smol_vision import parts
    from qig.models.smol_vision.build import build_model, build_processor
    from qig.models.smol_vision.training import RECIPES, Adapter, Trainer
    from qig.models.tiny.training import versions

    torch.set_num_threads(args.threads)
    steps, images = ("alignment_steps", "alignment_images") if args.stage == "see" else ("steps", "images")
    given = {steps: args.steps, images: args.images, "learning_rate": args.learning_rate}
    recipe = dataclasses.replace(RECIPES[args.stage], **{key: v for key, v in given.items() if v is not None})
    described = describe(NAME)
    base = packaged.checkpoint_dir(described.base)
    processor = build_processor(base)
    model = build_model(base, processor.tokenizer, args.seed)
    started, cpu_started = time.monotonic(), time.process_time()
    for folder in args.start:
        parts.load(model, folder, trainable=True)
    trainer = Trainer(model, processor, args.stage, recipe, args.seed, report=lambda line: print(line, flush=True))
    trainer.curriculum.unlocked = args.unlocked
    last = getattr(recipe, steps)
    for step in trainer.steps(Adapter()):
        if step % args.save_every == 0 or step == last:
            parts.save(model, args.out, seen=args.stage != "read")
    seconds = {"wall_seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu_started}
    accuracy = _accuracy(base, args.out, args.test_questions) if args.stage == "together" else {}
    record = {
        "name": NAME,
        "base": described.base,
        "seed": args.seed,
        "threads": args.threads,
        "stage": args.stage,
        "start": [folder.name for folder in args.start],
        "recipe": dataclasses.asdict(recipe),
        **{key: round(value, 1) for key, value in seconds.items()},
        "per_type": args.test_questions,
        "test_accuracy": accuracy,
        "curve": trainer.curve,
        "versions": versions(),
    }  # fmt: skip
    (args.out / f"training_{args.stage}.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def _accuracy(base: Path, folder: Path, questions: int) -> dict[str, float]:
    """By question type, of what was saved."""
    from qig.data.digitgrid import evaluation_set
    from qig.models.smol_vision import parts
    from qig.models.tiny.scoring import accuracy_of

    with TemporaryDirectory() as whole:
        parts.assemble(base, folder, Path(whole))
        return accuracy_of(Path(whole), evaluation_set(per_type=questions), 16)


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    return told("qig.models.smol_vision.train", lambda: _train(args))


def _train(args: argparse.Namespace) -> None:
    for type, accuracy in train(args)["test_accuracy"].items():
        print(f"{type:16} {accuracy:6.1%}")
    print(f"saved to {args.out}")


if __name__ == "__main__":
    sys.exit(main())
