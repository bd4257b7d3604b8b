"""How true the token weights are: rank correlation with a reference of many nodes, and the scales that both choose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from scipy.stats import spearmanr
from torch import Tensor

from qig.bench.work import Work
from qig.blockwise.activations import Activations
from qig.blockwise.run import BlockPass
from qig.blockwise.site import SiteView
from qig.config.schema import QigSensitivity
from qig.equalization.equalizer import Equalizer, Scale
from qig.sensitivity import estimator_of
from qig.sensitivity.estimator import Estimator, Scores
from qig.sensitivity.weights import token_weights


@dataclass(frozen=True)
class SiteAccuracy:
    """One site of one block under one rule.

    Attributes:
        rule: ``ours``, the configured one, or ``plain``, the published 32 points from the left.
        nodes: quadrature nodes used; 0 for the closed form.
        correlation: Spearman's, of the weights of all real tokens with the reference's.
        exponent, reference_exponent: what the search chooses under either.
    """

    model: str
    setting: str
    block: int
    site: str
    rule: str
    nodes: int | None
    correlation: float
    exponent: float
    reference_exponent: float


def rules(config: QigSensitivity, nodes: int) -> dict[str, QigSensitivity]:
    """The configured rule, the published one and the reference, alike in everything but the quadrature."""
    plain = replace(config, quadrature="riemann_left", nodes=32, max_nodes=32, closed_form=False)
    return {
        "ours": config,
        "plain": plain,
        "reference": replace(config, quadrature="midpoint", nodes=nodes, max_nodes=nodes),
    }


class _Compared(Estimator):
    """Gives on the configured rule's scores and keeps every rule's weights of the current site."""

    def __init__(self, config: QigSensitivity, nodes: int) -> None:
        super().__init__(config)
        self.estimators = {name: estimator_of(rule) for name, rule in rules(config, nodes).items()}
        self.needs_quantized_stream = self.estimators["ours"].needs_quantized_stream

    def scores(self, view: SiteView) -> Scores:
        self.found = {name: token_weights(one, view, one.config) for name, one in self.estimators.items()}
        return self.found["ours"].scores


class _Searches(Equalizer):
    """Searches under every rule's weights; what the configured rule's choose is folded."""

    needs_weights = True

    def __init__(self, inner: Equalizer, compared: _Compared, work: Work) -> None:
        super().__init__(inner.config)
        self.inner, self.compared, self.work = inner, compared, work
        self.needs_quantized_stream = inner.needs_quantized_stream
        self.sites: list[SiteAccuracy] = []

    def scale(self, view: SiteView, weights: list[Tensor] | None) -> Scale:
        found = self.compared.found
        scales = {name: self.inner.scale(view, one.values) for name, one in found.items()}
        flat = {name: _real(one.values, view) for name, one in found.items()}
        for name in ("ours", "plain"):
            self.sites.append(
                SiteAccuracy(
                    self.work.name,
                    self.work.config.quant.name,
                    view.index,
                    view.site.name,
                    name,
                    found[name].scores.nodes,
                    _rank_correlation(flat[name], flat["reference"]),
                    scales[name].exponent,
                    scales["reference"].exponent,
                )
            )
        return scales["ours"]


def accuracy(work: Work, nodes: int = 1024) -> list[SiteAccuracy]:
    """Both rules against a midpoint rule of so many nodes, at every searched site of the model."""
    with TemporaryDirectory() as folder:
        one = BlockPass(work.model(), work.batches, work.config, Activations(work.device), Path(folder))
        compared = _Compared(work.config.sensitivity, nodes)
        searches = _Searches(one.methods.equalizer, compared, work)
        one.methods = replace(one.methods, estimator=compared, equalizer=searches)
        one.run()
    return searches.sites


def summary(sites: list[SiteAccuracy]) -> Iterator[Mapping[str, object]]:
    """Per model, setting, site and rule: nodes, the least correlation, and the share of equal scales."""
    groups: dict[tuple[str, str, str, str], list[SiteAccuracy]] = {}
    for site in sites:
        groups.setdefault((site.model, site.setting, site.site, site.rule), []).append(site)
    for (model, setting, name, rule), found in groups.items():
        yield {
            "model": model,
            "setting": setting,
            "site": name,
            "rule": rule,
            "nodes": ", ".join(str(n) for n in sorted({one.nodes for one in found if one.nodes is not None})),
            "least_correlation": min(one.correlation for one in found),
            "equal_scales": sum(one.exponent == one.reference_exponent for one in found),
            "sites": len(found),
        }


def _real(values: list[Tensor], view: SiteView) -> Tensor:
    return torch.cat([value[real] for value, real in zip(values, view.real, strict=True)])


def _rank_correlation(one: Tensor, other: Tensor) -> float:
    return float(spearmanr(one.cpu().numpy(), other.cpu().numpy()).statistic)
