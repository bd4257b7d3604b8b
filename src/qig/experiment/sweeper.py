"""Hydra's basic sweeper, and beside the product of its parameters a list of arms (see ``jobs``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from qig.experiment.jobs import jobs
from qig.experiment.spec import read_figures, read_table


@dataclass
class ArmSweeperConf:
    """``table`` and ``figures`` say how the result is shown; the sweep itself does not read them."""

    _target_: str = "qig.experiment.sweeper.ArmSweeper"
    max_batch_size: int | None = None
    params: dict[str, Any] | None = None
    arms: dict[str, Any] = field(default_factory=dict)
    table: dict[str, Any] | None = None
    figures: list[str] | None = None


class ArmSweeper(BasicSweeper):
    """Without arms it is Hydra's own. A table or figure that cannot be made later is refused before anything runs."""

    def __init__(
        self,
        max_batch_size: int | None,
        params: dict[str, str] | None,
        arms: dict[str, str],
        table: dict[str, Any] | None,
        figures: list[str] | None,
    ) -> None:
        super().__init__(max_batch_size, dict(params or {}))
        self.arms = dict(arms)
        if table is not None:
            read_table(plain(table), self.arms)
        read_figures(plain(figures))

    def sweep(self, arguments: list[str]) -> Any:
        self._arguments = arguments
        return super().sweep(arguments)

    def split_arguments(self, overrides: list, max_batch_size: int | None) -> list[list[list[str]]]:
        batch = [list(job.overrides) for job in jobs(self.params, self.arms, self._arguments)]
        return list(self.split_overrides_to_chunks(batch, max_batch_size))


def plain(values: Any) -> Any:
    """A part of the sweeper's configuration as dicts and lists."""
    return OmegaConf.to_container(values, resolve=True) if OmegaConf.is_config(values) else values


def register() -> None:
    """Make ``hydra/sweeper=arms`` known to Hydra."""
    Plugins.instance().register(ArmSweeper)
    ConfigStore.instance().store(group="hydra/sweeper", name="arms", node=ArmSweeperConf, provider="qig", replace=True)
