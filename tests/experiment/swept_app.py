"""A command whose runs take milliseconds, swept by qig's own sweeper and launchers: what ``test_launching`` starts.

A job appends its number to ``ran``; it fails if there is a file ``broken/N``, and dies if there is ``deadly/N``.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import execution_whitelist
from omegaconf import OmegaConf

from qig.config import conf_dir, register
from qig.errors import JobsFailed
from qig.experiment import sweeper
from qig.report.jobs import leave_run
from qig.store import Store, write_json

HERE = Path.cwd()
CONFIG = {
    "defaults": [{"override hydra/sweeper": "arms"}, "_self_"],
    "a": 0,
    "b": 0,
    "threads": None,
    "here": str(HERE),
    "hydra": {
        "searchpath": [f"file://{conf_dir()}"],
        "callbacks": {"closing_table": {"_target_": "qig.report.sweep.ClosingTable"}},
        "sweep": {"dir": "out", "subdir": "${hydra.job.num}"},
    },
}


def left(config, cached: bool) -> dict:
    return {"run": f"run-{config.a}-{config.b}", "baselines": {}, "store": f"{config.here}/store", "cached": cached}


def in_store(config):
    found = Store(f"{config.here}/store").find("runs", left(config, True)["run"])
    return None if found is None else left(config, True)


def task(config) -> None:
    name, here = f"{config.a}-{config.b}", Path(config.here)
    with (here / "ran").open("a") as stream:
        stream.write(f"{name}\n")
    if (here / "deadly" / name).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if (here / "leaving" / name).exists():
        sys.exit(3)
    if (here / "broken" / name).exists():
        raise ValueError(f"no luck with {name}")
    build = lambda folder: write_json(folder / "record.json", {"threads": config.threads})  # noqa: E731
    Store(here / "store").make("runs", left(config, False)["run"], build)
    leave_run(Path(HydraConfig.get().runtime.output_dir), left(config, False))


if __name__ == "__main__":
    register()
    (HERE / "conf").mkdir(exist_ok=True)
    OmegaConf.save(OmegaConf.create(CONFIG), HERE / "conf" / "app.yaml")
    sweeper.outcome_in_store = in_store
    sweeper.refuse_mistakes = sweeper.refuse_absent_data = lambda jobs: []  # its jobs are no runs
    sweeper.track_stored = lambda job, composed: None
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        with execution_whitelist(["qig.*", "hydra.*", "hydra_plugins.*", "logging.*"]):
            hydra.main(config_path=str(HERE / "conf"), config_name="app")(task)()
    except JobsFailed as error:
        sys.exit(f"error: {error}")
