"""Configuration: schemas, their registration with Hydra, validation, resolution and identity."""

from __future__ import annotations

from pathlib import Path

from qig.config.schema import GROUPS, Config


def register() -> None:
    """Put the schemas into Hydra's store, under ``schema/`` so that they do not show among a group's choices."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config)
    for group, schemas in GROUPS.items():
        for name, node in schemas.items():
            store.store(group=f"schema/{group}", name=name, node=node)


def conf_dir() -> Path:
    """Where the YAML files are: ``conf`` in the package, which in a clone is a link to the folder at the top."""
    return Path(__file__).resolve().parents[1] / "conf"
