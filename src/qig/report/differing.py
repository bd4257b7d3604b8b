"""Which configuration keys tell a set of runs apart, beyond method, model and setting."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from qig.config.sources import METHODS
from qig.report.records import Run

IGNORED_GROUPS = ("tracking", "store", "method", "hydra")
IGNORED_KEYS = ("model.name", "quant.name", "model.outliers.sigma")
METHOD_GROUPS = tuple(METHODS)
NAMES = ("kind", "name")


def differing(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Dotted key -> one value a run (None where a run has no such key), in the order of the configuration.

    A key is left out when something that is shown already says it: everything below ``sensitivity``,
    ``equalization`` and ``rounding`` that follows from the method, and everything in a group that follows from the
    group's own ``kind`` or ``name`` (``model.path`` from ``model.name``).
    """
    flat = [flatten(_effective(run)) for run in runs]
    keys = dict.fromkeys(key for values in flat for key in values)
    return {key: [values.get(key) for values in flat] for key in keys if _tells_apart(key, runs, flat)}


def _effective(run: Run) -> Mapping[str, Any]:
    """The configuration without what this run does not read: a 16-bit model no method, a data-free one no seed."""
    unread: tuple[str, ...] = ()
    if run.quantized_folder is None:
        unread += METHOD_GROUPS
    if not (run.record["stages"].get("calibration") or {}).get("sha256"):
        unread += ("calibration", "seed")
    return {group: value for group, value in run.config.items() if group not in unread}


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``; lists stay whole, empty groups vanish."""
    flat = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = value
    return flat


def _tells_apart(key: str, runs: Sequence[Run], flat: Sequence[Mapping[str, Any]]) -> bool:
    group, _, leaf = key.partition(".")
    if group in IGNORED_GROUPS or key in IGNORED_KEYS:
        return False
    seen: dict[tuple, set[str]] = {}
    for run, values in zip(runs, flat, strict=True):
        # A run without the key (a 16-bit model has no calibration) does not make it worth a column.
        if key in values:
            owner = _owner(group, leaf, run, values)
            seen.setdefault(owner, set()).add(json.dumps(values[key], sort_keys=True, default=str))
    return any(len(different) > 1 for different in seen.values())


def _owner(group: str, leaf: str, run: Run, values: Mapping[str, Any]) -> tuple:
    """What is shown of this run that may already determine the key."""
    # A method may follow the setting: QIG's reference is zero where only weights are quantized.
    method = (run.method, run.setting) if group in METHOD_GROUPS else ()
    if not leaf or leaf in NAMES:
        return method
    return method + tuple(str(values.get(f"{group}.{name}")) for name in NAMES)
