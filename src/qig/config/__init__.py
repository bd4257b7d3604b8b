"""Configuration: schemas, their registration with Hydra, validation, resolution and identity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from qig.config.schema import GROUPS, Config


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
    """What ``--help`` lists: Hydra's own list also has the schemas, which nobody is to choose."""
    groups: dict[str, list[str]] = {}
    for path in sorted(conf_dir().glob("*/*.yaml")):
        groups.setdefault(path.parent.name, []).append(path.stem)
    return "\n".join(f"{group}: {', '.join(names)}" for group, names in groups.items())


def method_name(choices: Mapping[str, str]) -> str:
    """What a run is called: its method preset, if the composed groups are the preset's, else the groups themselves.

    ``choices``: group to chosen file, as Hydra reports them.
    """
    preset = OmegaConf.load(conf_dir() / "method" / f"{choices['method']}.yaml")
    wanted = {key.removeprefix("override /"): name for entry in preset.defaults for key, name in entry.items()}
    if all(choices[group] == name for group, name in wanted.items()):
        return choices["method"]
    return "+".join(choices[group] for group in ("sensitivity", "equalization", "rounding"))


def conf_dir() -> Path:
    """Where the YAML files are: ``conf`` in the package, which in a clone is a link to the folder at the top."""
    return Path(__file__).resolve().parents[1] / "conf"


def default_store() -> Path:
    """``store`` as ``config.yaml`` has it: QIG_STORE, or else ``outputs/store``."""
    return Path(OmegaConf.load(conf_dir() / "config.yaml").store)
