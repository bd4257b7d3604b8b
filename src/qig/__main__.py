"""``qig``: compose a configuration, run it, leave its run in the job's folder. See ``qig --help``."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import hydra
from hydra._internal.utils import get_args
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import execution_whitelist
from omegaconf import DictConfig

from qig.config import conf_dir, own, register
from qig.config.composed import composed, trouble, typed
from qig.config.schema import Config
from qig.errors import ConfigError, QigError
from qig.report.jobs import leave_run
from qig.runner import Prepared
from qig.secrets import masked, refuse_in_config, refuse_in_words
from qig.stopping import Stopped, stoppable
from qig.store import disk_trouble
from qig.tracked import tracked

log = logging.getLogger(__name__)
HOME = re.compile(r"(?<==)~/")


@hydra.main(config_path=str(conf_dir()), config_name="config")
def job(job_config: DictConfig) -> str:
    """One Hydra job: the id of its run, which is also left in the job's folder for the closing table."""
    register()  # in a launcher's process nothing has
    config = typed(job_config, HydraConfig.get().runtime)
    _refuse_secrets(config)
    experiment = HydraConfig.get().runtime.choices.get("experiment")
    if experiment and HydraConfig.get().mode == RunMode.RUN:
        log.warning("+experiment=%s without -m: this one job, none of its sweep", experiment)
    prepared = Prepared(config)
    if config.plan:
        log.info("%s %s %s, foreseen:\n%s", config.model.name, config.quant.name, config.method, prepared.plan())
        return ""
    outcome = tracked(prepared, HydraConfig.get())
    leave_run(Path(HydraConfig.get().runtime.output_dir), outcome.left())
    return outcome.run


def _refuse_secrets(config: Config) -> None:
    """Raises ConfigError for a secret; Hydra has written the configuration by then, and its copies are masked."""
    try:
        refuse_in_config(asdict(config))
    except ConfigError:
        settings = HydraConfig.get()
        copies = Path(settings.runtime.output_dir, ".hydra").glob("*.yaml")
        for file in filter(Path.is_file, [*copies, Path(settings.sweep.dir, "multirun.yaml")]):
            file.write_text(masked(file.read_text()))
        raise


def meant_by(arguments: Sequence[str]) -> list[str]:
    """The words as Hydra wants them: ``~/`` behind = is the user's home, which no shell replaces there.

    ``model.path=DIR`` without a choice of ``model`` means a checkpoint of the user's own: ``model=hf`` is added.

    Raises:
        ConfigError: a sweep is to be shown, which Hydra does for single jobs.
    """
    flags = [argument for argument in arguments if argument in ("-m", "--multirun")]
    if flags and any(argument in ("-c", "--cfg") for argument in arguments):
        raise ConfigError(f"--cfg shows one job: leave {flags[0]} out; what a sweep would run says plan=true")
    arguments = [HOME.sub(os.path.expanduser("~/"), argument, count=1) for argument in arguments]
    keys = [argument.partition("=")[0] for argument in arguments]
    own = "model.path" in keys and not {"model", "+experiment"} & set(keys)
    return [*arguments, "model=hf"] if own else list(arguments)


def refuse_early(arguments: Sequence[str]) -> None:
    """Check a single job before Hydra makes its folder; a sweep's are checked by the sweeper (``mistakes``).

    Raises:
        QigError: it cannot run, as far as that shows without loading anything.
    """
    given = vars(get_args(arguments))
    words, folder, _ = (given.pop(name) for name in ("overrides", "config_dir", "run"))
    if any(given.values()):  # a sweep, another configuration's name, or something to be shown
        return
    if folder is not None and any(word.startswith(own.SEARCH) for word in words):
        return  # two places to look into, which one word cannot say
    config = composed([*words, *own.words(None if folder is None else Path(folder))])
    refuse_in_config(asdict(config))
    Prepared(config)


def main() -> None:
    """The console script. A mistake of the user becomes one message; anything else keeps its traceback."""
    register()
    wants_traceback = bool(os.environ.get("HYDRA_FULL_ERROR"))
    logging.raiseExceptions = False  # a log on a full disk would print a traceback for each of its lines
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its exceptions on instead of printing and exiting by itself
    try:
        refuse_in_words(sys.argv[1:])
        sys.argv[1:] = meant_by(sys.argv[1:])
        refuse_early(sys.argv[1:])
        # The list is what a configuration may name.
        with execution_whitelist(["qig.*", "hydra.*", "hydra_plugins.*", "logging.*"]), stoppable():
            job()
    except Stopped as stopped:
        print(f"{stopped}: what is finished is kept, and the same command goes on from there", file=sys.stderr)
        sys.exit(stopped.code)
    except Exception as error:
        told = message(error)
        if wants_traceback or told is None:
            raise
        sys.exit(f"error: {told}")


def message(error: Exception) -> str | None:
    """What a user is told of a mistake of their own; ``None`` for an error of ours, which keeps its traceback."""
    told = str(error) if isinstance(error, QigError) else trouble(error)
    if told is not None:
        return masked(told)
    folder = isinstance(error, (PermissionError, FileExistsError, NotADirectoryError))
    disk = error if folder else disk_trouble(error)
    return None if disk is None else str(disk)  # outside the store: the job's own folder, its log


if __name__ == "__main__":
    main()
