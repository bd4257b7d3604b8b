"""``qig``: compose a configuration, run it, leave its run in the job's folder. See ``qig --help``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qig.config import conf_dir, register
from qig.errors import ConfigError, QigError
from qig.runner import BASELINES, Outcome, Prepared


@hydra.main(config_path=str(conf_dir()), config_name="config")
def job(composed: DictConfig) -> str:
    """One Hydra job. A mistake of the user becomes one message; anything else keeps its traceback."""
    try:
        return _run(composed)
    except QigError as error:
        raise CompactHydraException(f"error: {error}") from None


def _run(composed: DictConfig) -> str:
    try:
        config = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error)) from error
    prepared = Prepared(config)
    outcome = prepared.run() if prepared.cached else _tracked(prepared)
    left = {"run": outcome.run, "baselines": outcome.baselines, "store": str(outcome.store), "cached": outcome.cached}
    (Path(HydraConfig.get().runtime.output_dir) / "run.json").write_text(json.dumps(left) + "\n")
    return outcome.run


def _tracked(prepared: Prepared) -> Outcome:
    """Run with the configured tracker: one tracked run a job, grouped by sweep, marked failed if it fails."""
    from qig.report.comparison import Compared, comparison
    from qig.report.records import load_run
    from qig.tracking import tracker

    config = prepared.config
    settings = HydraConfig.get()
    group = Path(settings.sweep.dir).name if settings.mode is RunMode.MULTIRUN else None
    name = f"{config.model.name} {config.quant.name} {config.method}"
    with tracker(asdict(config), name, group, config.method) as tracking:
        outcome = prepared.run()
        run = load_run(outcome.store, outcome.run)
        baselines = [load_run(outcome.store, outcome.baselines[key]) if key in outcome.baselines else None for key in BASELINES]
        tracking.log_run(run)
        tracking.log_comparison(comparison([Compared(run, *baselines)]))
    return outcome


def main() -> None:
    register()
    job()


if __name__ == "__main__":
    main()
