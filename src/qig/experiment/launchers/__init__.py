"""Hydra's launchers, where ours do more than the plugins (``conf/hydra/launcher``, docs/CLUSTERS.md).

The plugins come with ``pip install --editable '.[cluster]'``; without them every launcher but Hydra's own is refused.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from qig.errors import ConfigError

OURS = {"joblib": ("JoblibLauncher",), "submitit": ("LocalLauncher", "SlurmLauncher")}
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""No report of ours to Ray's makers; and a job without GPUs of its own sees what its machine has, as Ray will have it.
"""


def register() -> None:
    """Make our launchers known to Hydra, as far as their plugins are installed."""
    from hydra.core.plugins import Plugins

    if find_spec("hydra_plugins") is None:  # no plugin at all: what a plain install has
        return
    for plugin, classes in OURS.items():
        if find_spec(f"hydra_plugins.hydra_{plugin}_launcher") is not None:
            module = import_module(f"qig.experiment.launchers.{plugin}")
            for name in classes:
                Plugins.instance().register(getattr(module, name))


def check_installed(target: str) -> None:
    """Refuse a launcher (``module.Class``) whose plugin is not installed.

    Raises:
        ConfigError: says how to install it.
    """
    try:
        import_module(target.rpartition(".")[0])
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"hydra.launcher {target} needs {error.name}, which is not installed: pip install --editable '.[cluster]'"
        ) from error
