"""Configuration: schemas, their registration with Hydra, validation, resolution and identity."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from qig.config.schema import GROUPS, Config


@cache
def register() -> None:
    """Put the schemas into Hydra's store, under ``schema/`` so that they do not show among a group's choices."""
    from hydra.core.config_store import ConfigStore

    from qig.experiment import sweeper

    sweeper.register()
    OmegaConf.register_resolver("by_setting", _by_setting, replace=True)
    OmegaConf.register_resolver("by_reference", _by_reference, replace=True)
    OmegaConf.register_resolver("groups_and_choices", _groups_and_choices, replace=True)
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config, replace=True)
    for group, schemas in GROUPS.items():
        for name, node in schemas.items():
            store.store(group=f"schema/{group}", name=name, node=node, replace=True)


def _by_setting(weight_only: Any, otherwise: Any, *, _root_: Any) -> Any:
    """``${by_setting:A,B}``: A if the setting quantizes weights only, B if it quantizes activations, too."""
    return weight_only if _root_.quant.activations is None else otherwise


def _by_reference(zero: Any, quantized: Any, *, _parent_: Any) -> Any:
    """``${by_reference:A,B}``, of an integral: A from a zero reference, B from the quantized stream's input."""
    return zero if _parent_.reference == "zero" else quantized


def _groups_and_choices() -> str:
    """What ``--help`` lists, the user's own among it: Hydra's own list also has the schemas, which nobody chooses."""
    from hydra.core.global_hydra import GlobalHydra

    loader = GlobalHydra.instance().config_loader()
    groups = sorted({path.parent.name for path in conf_dir().glob("*/*.yaml")})
    return "\n".join(f"{group}: {', '.join(loader.get_group_options(group))}" for group in groups)


def conf_dir() -> Path:
    """Where the YAML files are: ``conf`` in the package, which in a clone is a link to the folder at the top."""
    return Path(__file__).resolve().parents[1] / "conf"


def default_store() -> Path:
    """``store`` as ``config.yaml`` has it: QIG_STORE, or else ``outputs/store``."""
    return Path(OmegaConf.load(conf_dir() / "config.yaml").store)
