"""The three choices of a method, built from the configuration, and what they need of the pass."""

from __future__ import annotations

from dataclasses import dataclass

from qig.config.schema import Config, Sensitivity
from qig.equalization import equalizer_of
from qig.equalization.equalizer import Equalizer
from qig.quantization.setting import Setting
from qig.rounding import rounder_of
from qig.rounding.rounder import Rounder
from qig.sensitivity import estimator_of
from qig.sensitivity.estimator import Estimator


@dataclass(frozen=True)
class Methods:
    """Sensitivity x equalization x rounding, and the bit setting they work for."""

    setting: Setting
    sensitivity: Sensitivity
    sites: tuple[str, ...]
    share: bool
    estimator: Estimator
    equalizer: Equalizer | None
    rounder: Rounder

    @classmethod
    def of(cls, config: Config) -> Methods:
        return cls(
            Setting.of(config.quant),
            config.sensitivity,
            tuple(config.equalization.sites),
            config.equalization.share_attn_out,
            estimator_of(config.sensitivity),
            equalizer_of(config.equalization),
            rounder_of(config.rounding),
        )

    @property
    def weighted(self) -> bool:
        """Whether token weights enter anywhere; if not, none are computed."""
        return self.rounder.needs_inputs or (self.equalizer is not None and self.equalizer.needs_weights)

    @property
    def needs_quantized_stream(self) -> bool:
        return self.rounder.needs_quantized_stream or self.views_need_quantized_stream

    @property
    def views_need_quantized_stream(self) -> bool:
        """Whether attribution or the search of a site reads x_q."""
        searched = self.equalizer is not None and self.equalizer.needs_quantized_stream
        return searched or (self.weighted and self.estimator.needs_quantized_stream)
