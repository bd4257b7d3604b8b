"""What a run is called, from what Hydra composed it of."""

from __future__ import annotations

from hydra._internal.config_repository import ConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.default_element import GroupDefault
from omegaconf import DictConfig


def method_name(runtime: DictConfig) -> str:
    """What a run is called: its method preset, if the composed groups are the preset's, else the groups themselves.

    ``runtime``: Hydra's account of what it composed: ``choices`` (group to chosen file) and ``config_sources``, where
    it looked for files, which ``--config-dir`` adds to.
    """
    places = ConfigSearchPathImpl()
    for source in runtime.config_sources:
        if source.path:  # Hydra's own schemas have none
            places.append(source.provider, f"{source.schema}://{source.path}")
    choices = runtime.choices
    wanted = _preset(ConfigRepository(places), f"method/{choices.method}")
    if all(choices[group] == name for group, name in wanted.items()):
        return choices.method
    return "+".join(choices[group] for group in ("sensitivity", "equalization", "rounding"))


def _preset(files: ConfigRepository, name: str) -> dict[str, str]:
    """Group to the file that a preset chooses of it, itself or by the presets that it begins with."""
    wanted: dict[str, str] = {}
    for default in files.load_config(name).defaults_list:
        if isinstance(default, GroupDefault):
            if default.override:
                wanted[default.group.removeprefix("/")] = default.value
        elif not default.is_self():
            wanted |= _preset(files, default.path[1:] if default.path.startswith("/") else f"method/{default.path}")
    return wanted
