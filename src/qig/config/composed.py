"""From what Hydra composed to the typed configuration of a run."""

from __future__ import annotations

import re

from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from qig.config import method_name
from qig.config.schema import Config
from qig.errors import ConfigError

ABSENT = re.compile(r"(?:Missing mandatory value|missing mandatory value: \S+\s+full_key): (\S+)")


def typed(composed: DictConfig, choices: dict[str, str]) -> Config:
    """The configuration object, named after its method. ``choices``: group to chosen file, as Hydra reports them.

    Raises:
        ConfigError: a value is missing, or of another type than the schema's.
    """
    try:
        config = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        missing = ABSENT.search(str(error))
        raise ConfigError(
            f"{missing[1]} has no default: give it as {missing[1]}=VALUE" if missing else str(error)
        ) from None
    config.method = method_name(choices)
    return config


def typed_job(composed: DictConfig) -> Config:
    """The same of a job as ``compose(..., return_hydra_config=True)`` or a launcher has it, with Hydra's own part.

    Raises:
        ConfigError: as :func:`typed`.
    """
    choices = dict(composed.hydra.runtime.choices)
    own = composed.copy()
    with flag_override(own, ["struct", "readonly"], False):
        del own["hydra"]
    return typed(own, choices)
