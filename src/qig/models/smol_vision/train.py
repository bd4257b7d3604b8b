"""``python -m qig.models.smol_vision.train``: train tower, projector and LoRA; save them, and what they reach."""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from qig.errors import QigError
from qig.models.smol_vision import BASE, NAME


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qig.models.smol_vision.train",
        description="Teach DigitGrid to a vision-language model on SmolLM2-135M: stage 1 trains vision tower and "
        "projector to speak in word embeddings (minutes), stage 2 all of it, with a LoRA of the language model (hours "
        "on 2 cores). Saved every --save-every steps; --start goes on from there. Needs `make smol` first.",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder of what is trained; created if absent")
    parser.add_argument("--start", type=Path, help="folder of an earlier run: its stage 1 is not done again")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, scenes and questions (default: 0)")
    parser.add_argument("--steps", type=int, help="steps of stage 2 (default: the recipe's)")
    parser.add_argument("--alignment-steps", type=int, help="steps of stage 1 (default: the recipe's)")
    parser.add_argument("--learning-rate", type=float, help="peak rate of both stages (default: the recipe's)")
    parser.add_argument("--unlocked", action="store_true", help="all question types from the beginning")
    parser.add_argument("--test-questions", type=int, default=50, help="test questions per type (default: 50)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--save-every", type=int, default=50, help="steps between savings (default: 50)")
    return parser


def train(args: argparse.Namespace) -> dict:
    """Run the recipe; returns the record, which is also written to ``out/training_record.json``.

    Raises:
        ModelError: the base has not been fetched.
    """
    import torch
    import transformers

    from qig.data.digitgrid import evaluation_set
    from qig.models import packaged
    from qig.models.smol_vision import parts
    from qig.models.smol_vision.build import build_model, build_processor
    from qig.models.smol_vision.training import RECIPE, Adapter, Trainer
    from qig.models.tiny.scoring import accuracy_by_type, answer_questions

    torch.set_num_threads(args.threads)
    given = {
        "steps": args.steps, "alignment_steps": args.alignment_steps, "learning_rate": args.learning_rate
    }  # fmt: skip
    recipe = dataclasses.replace(RECIPE, **{key: value for key, value in given.items() if value is not None})
    base = packaged.checkpoint_dir(BASE)
    processor = build_processor(base)
    model = build_model(base, processor.tokenizer, args.seed)
    started, cpu_started = time.monotonic(), time.process_time()
    trainer = Trainer(model, processor, recipe, args.seed, report=lambda line: print(line, flush=True))
    trainer.curriculum.unlocked = args.unlocked
    if args.start is not None:
        parts.load(model, args.start, trainable=True)
    else:
        trainer.align()
        parts.save(model, args.out)
    for step in trainer.tune(Adapter()):
        if step % args.save_every == 0 or step == recipe.steps:
            parts.save(model, args.out)
    seconds = {"wall_seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu_started}
    with TemporaryDirectory() as folder:  # what was saved is measured, as a user loads it
        parts.assemble(base, args.out, Path(folder))
        saved = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        reader = transformers.AutoProcessor.from_pretrained(folder)
        items = evaluation_set(per_type=args.test_questions)
        accuracy = accuracy_by_type(items, answer_questions(saved, reader, items, batch_size=16))
    record = {
        "name": NAME,
        "base": BASE,
        "seed": args.seed,
        "threads": args.threads,
        "start": None if args.start is None else str(args.start),
        "recipe": dataclasses.asdict(recipe),
        **{key: round(value, 1) for key, value in seconds.items()},
        "per_type": args.test_questions,
        "test_accuracy": accuracy,
        "test_accuracy_mean": sum(accuracy.values()) / len(accuracy),
        "curve": trainer.curve,
        "versions": {
            "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__
        },
    }  # fmt: skip
    (args.out / "training_record.json").write_text(json.dumps(record, indent=1) + "\n")
    return record


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        record = train(args)
    except QigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for type, accuracy in record["test_accuracy"].items():
        print(f"{type:16} {accuracy:6.1%}")
    print(f"{'mean':16} {record['test_accuracy_mean']:6.1%}   saved to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
