"""What a run is called, from what Hydra composed it of."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.config_repository import ConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.default_element import GroupDefault
from omegaconf import DictConfig

from qig.config.schema import Config
from qig.config.sources import METHODS
from qig.config.validation import needs_calibration

SAID = ("model", "quant", "method", "model.path", "model.name", "quant.name", *METHODS)
"""What model, setting and method say: the groups' files, too, after which a method is called where it is no preset."""
ELSEWHERE = ("experiment", "hydra", "tracking", "store", "device", "threads", "memory", "plan")
"""Groups that say where and how a run is made, and not which."""
LONGEST = 128  # characters of a W&B run's name


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
    return "+".join(choices[group] for group in METHODS)


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


def run_name(config: Config, words: Sequence[str], key: str) -> str:
    """What a tracked run is called: ``tiny_qwen2_vl w3a16 qig seed=3 sensitivity.reference=zero``.

    Model, setting and method, then those of the job's overrides that these do not say and the run reads, sorted; of a
    path its end. What is too long ends with the beginning of ``key``, the run's id.

    Args:
        config: the resolved configuration.
        words: the overrides.
    """
    unread = set(ELSEWHERE)
    if not needs_calibration(config):
        unread |= {"sensitivity", "calibration", "seed"}
    if config.quant.weights is None:
        unread |= {"quant", *METHODS}
    told = set()
    for word in words:
        name, equals, value = word.lstrip("+").partition("=")
        if name not in SAID and name.partition(".")[0].partition("/")[0].partition("@")[0] not in unread:
            told.add(name + equals + value.rstrip("/").rpartition("/")[2])
    name = " ".join([config.model.name, config.quant.name, config.method, *sorted(told)])
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 10]}… {key[:8]}"
