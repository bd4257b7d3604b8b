"""``python -m qig.evaluation``: a checkpoint or a run on a benchmark, by one process or several. See ``--help``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from qig.errors import EvaluationError, QigError

_DESCRIPTION = """\
Evaluate a model on benchmarks, without the store. Several processes share the work and find the same, bit by bit:

  python -m qig.evaluation outputs/store/runs/RUN results/run evaluation=paper
  accelerate launch --num_processes 8 -m qig.evaluation outputs/store/runs/RUN results/run evaluation=paper
  torchrun --nproc-per-node 8 -m qig.evaluation CHECKPOINT FOLDER evaluation=mbq evaluation.tasks=[mmbench_en_dev]
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
    config = _composed(overrides)

    from qig.config.identity import evaluation_key
    from qig.config.threads import available_threads
    from qig.determinism import prepare
    from qig.environment import quiet
    from qig.quantized import content_of, load_checkpoint
    from qig.stages import device_name

    from .journal import discard
    from .parallel import evaluate_into, own_device
    from .ranks import Ranks

    quiet()
    prepare(config.evaluation.seed, config.threads or available_threads())
    device = device_name(config.device)
    loaded = load_checkpoint(checkpoint, own_device(device))
    model = {"content": content_of(checkpoint), "device": device.partition(":")[0], "threads": config.threads}
    identity = evaluation_key(config, model, None)
    folder.mkdir(parents=True, exist_ok=True)
    ranks = Ranks.of_environment()
    try:
        evaluate_into(folder, loaded, config.evaluation, identity)
        if ranks.is_main:
            discard(folder)
    finally:
        ranks.leave()


def _composed(overrides: list[str]):
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from qig.config import conf_dir, register
    from qig.config.rules import check

    register()
    try:
        with initialize_config_dir(config_dir=str(conf_dir())):
            config = OmegaConf.to_object(compose("config", overrides=overrides))
            check(config)
            return config
    except (HydraException, OmegaConfBaseException) as error:
        raise EvaluationError(str(error)) from error


if __name__ == "__main__":
    main()
