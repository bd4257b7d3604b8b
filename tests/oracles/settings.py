"""Configurations for tests of single estimators."""

from __future__ import annotations

from dataclasses import replace

from qig.config.schema import QigSensitivity


def make_config(**changes):
    """Zero reference, no clipping, plain quadrature with 8 nodes, and the given changes."""
    base = QigSensitivity(
        kind="qig", granularity="token_special", normalize="sample", control="none", control_seed=0,
        reference="zero", target="error", quantized_branch="differentiable", quantized_activations=False, factor=1.0,
        warmup_sites=0, quadrature="gauss_legendre", nodes=8, max_nodes=8, tolerance=0.005, score="abs_mean",
        clip="none", clip_factor=1.5, closed_form=True,
    )  # fmt: skip
    return replace(base, **changes)
