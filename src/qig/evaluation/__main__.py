"""``python -m qig.evaluation``: a checkpoint or a run on a benchmark, by one process or several. See ``--help``."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from qig.errors import ConfigError, QigError

_DESCRIPTION = """\
Evaluate a model on benchmarks, without the store. Several processes share the work and find the same, bit by bit:

  python -m qig.evaluation outputs/store/runs/RUN results/run evaluation=paper
  accelerate launch --num_processes 8 -m qig.evaluation outputs/store/runs/RUN results/run evaluation=paper
  torchrun --nproc-per-node 8 -m qig.evaluation CHECKPOINT FOLDER evaluation=mbq evaluation.tasks=[realworldqa]
"""


def main() -> None:
    """A mistake of the user becomes one message of the first process; every process fails with it."""
    parser = argparse.ArgumentParser(
        prog="python -m qig.evaluation", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = "a run's folder, a quantized stage's folder, or a Hugging Face checkpoint, in its own type of numbers"
    parser.add_argument("checkpoint", help=what)
    parser.add_argument("folder", type=Path, help="gets samples.jsonl and evaluation.json")
    parser.add_argument(
        "overrides", nargs="*", help="as for qig: evaluation=NAME, evaluation.KEY=VALUE, device, threads"
    )
    arguments = parser.parse_args()
    try:
        _run(arguments.checkpoint, arguments.folder, arguments.overrides)
    except QigError as error:
        sys.exit(f"error: {error}" if os.environ.get("RANK", "0") == "0" else 1)


def _run(checkpoint: str, folder: Path, overrides: list[str]) -> None:
    from qig.config.composed import composed
    from qig.config.identity import evaluation_key
    from qig.config.rules import check
    from qig.config.threads import available_threads
    from qig.determinism import prepare
    from qig.devices import check_evaluation, device_name
    from qig.environment import quiet
    from qig.quantized import content_of, load_checkpoint

    from .journal import discard
    from .parallel import evaluate_into, own_device, read_samples
    from .ranks import Ranks
    from .spread import placed
    from .summary import check_answers

    config = composed(overrides)
    check(config)
    quiet()
    threads = config.threads or available_threads()
    prepare(config.evaluation.seed, threads)
    device, sharded = device_name(config.device), config.evaluation.sharded
    check_evaluation(config.evaluation, device)
    if sharded and (processes := Ranks.of_environment().size) > 1:
        raise ConfigError(f"evaluation.sharded=true: one process spreads one model; {processes} were started")
    loaded = placed(partial(load_checkpoint, checkpoint), own_device(device), sharded)
    kind = device.partition(":")[0]
    model = {"content": content_of(checkpoint), "device": kind, "threads": threads if kind == "cpu" else None}
    identity = evaluation_key(config, model, None)
    folder.mkdir(parents=True, exist_ok=True)
    evaluate_into(folder, loaded, config.evaluation, identity)
    if Ranks.of_environment().is_main:
        check_answers(read_samples(folder), config.evaluation)
        discard(folder)


if __name__ == "__main__":
    main()
