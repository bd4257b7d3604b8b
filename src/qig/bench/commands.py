"""The subcommands: each measures, writes its files and returns its table."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

import torch

from qig.bench import figures, results
from qig.bench.accuracy import SiteAccuracy, summary
from qig.bench.accuracy import accuracy as accuracy_of
from qig.bench.evaluation import throughput
from qig.bench.foreseen import foreseen_and_measured
from qig.bench.published import Turn, medians
from qig.bench.published import published as beside
from qig.bench.scaling import rows as scaling_rows
from qig.bench.scaling import scaling as points
from qig.bench.startup import startup as starts
from qig.bench.work import Work, of_model, of_shape
from qig.devices import device_name
from qig.errors import QigError


def _seconds(device: torch.device) -> str:
    if device.type == "cpu":
        return "Processor seconds, all threads together; other work on the machine counts little in them."
    return "Seconds by the clock, once the device has done what was asked of it."


def calibration(options: Namespace) -> str:
    work = _work(options)
    rows, about = foreseen_and_measured(work)
    return results.write(
        options.to, options.typed, f"calibration_{work.name}_{work.config.quant.name}_{work.device.type}",
        f"Calibration of {work.blocks} blocks of {work.name}", about, rows,
        {"what": "", "foreseen": "foreseen:,.2f", "measured": "measured:,.2f", "unit": ""}, work.device,
    )  # fmt: skip


def published(options: Namespace) -> str:
    work = _work(options)
    few = work.of_samples(min(options.few, options.samples))
    for turns in beside(work, few, options.settings, options.methods, options.repetitions):
        text = _published(options, work, few, turns)  # what a long run that is stopped has found stays
    return text


def _published(options: Namespace, work: Work, few: Work, turns: list[Turn]) -> str:
    sizes = sorted(batch.kinds.numel() for batch in work.batches)
    return results.write(
        options.to, options.typed, "_".join(["published", work.name, *options.settings, work.device.type]),
        f"Calibration beside the published cost structure: {work.name}",
        f"{work.blocks} block(s) with random weights and synthetic outliers, {work.samples} samples, "
        f"{work.tokens:,} tokens in {len(sizes)} micro-batches of up to {sizes[-1]}, {work.config.model.dtype}. "
        f"Seconds a block and 1,000 tokens, medians of {turns[-1].repetition + 1} turns in which all methods take "
        f"part. {_seconds(work.device)} `plain`: tests/oracles/published_cost.py, which computes what `release` "
        f"(method=qig_release without its warm-up) does; both see {few.samples} samples, for their time is linear in "
        "them. `times faster`: attribution and search beside plain's; `to AWQ`: the whole pass beside uniform weights.",
        medians(turns),
        {"setting": "", "method": "", "tokens": "tokens:,", "capture": "capture:.2f", "attribution": "attribution:.2f",
         "search": "search:.2f", "propagation": "propagation:.2f", "total": "whole pass:.2f",
         "attribution_and_search": "attribution + search:.2f", "least": "least:.2f", "most": "most:.2f",
         "times_faster": "times faster:.2f", "to_awq": "to AWQ:.2f", "nodes": "nodes"},
        work.device, [asdict(turn) for turn in turns], figures.stages,
    )  # fmt: skip


def accuracy(options: Namespace) -> str:
    device, samples = torch.device(device_name(options.device)), f"calibration.samples={options.samples}"
    sites = []
    for name in options.models:
        original = of_model(name, [samples], device)
        for setting in options.settings:
            sites += accuracy_of(original.under(f"quant={setting}", "method=qig"), options.nodes)
            text = _accuracy(options, sites, device)
    return text


def _accuracy(options: Namespace, sites: list[SiteAccuracy], device: torch.device) -> str:
    return results.write(
        options.to, options.typed, "accuracy", "Token weights and scales against a fine rule",
        f"{options.samples} samples; reference: a midpoint rule of {options.nodes} nodes, everything else alike. "
        "`ours`: the default rule; `plain`: 32 points from the left, as released. Spearman's correlation of the "
        "weights of all real tokens, the least over the blocks; at how many sites the search chooses the same scale.",
        list(summary(sites)),
        {"model": "", "setting": "", "site": "", "rule": "", "nodes": "nodes",
         "least_correlation": "least correlation:.5f", "equal_scales": "equal scales", "sites": "of sites"},
        device, [asdict(site) for site in sites],
    )  # fmt: skip


def scaling(options: Namespace) -> str:
    device = torch.device(device_name(options.device))
    measured = points(options.shape, options.setting, options.samples, options.plain, str(device))
    return results.write(
        options.to, options.typed, f"scaling_{options.shape}_{device.type}",
        f"Growth of time and memory: {options.shape}",
        f"{options.setting}; random blocks, samples of about 400 tokens; each point in a process of its own. "
        f"{_seconds(device)} Peak: highest resident size (an accelerator: bytes allocated) above that with the model. "
        "`all samples at once` is how the release runs a block.",
        scaling_rows(measured),
        {"method": "", "samples": "samples", "tokens": "tokens:,", "blocks": "blocks", "activations": "activations",
         "tokens_per_batch": "tokens a micro-batch", "seconds_a_block": "seconds a block:.1f",
         "attribution_and_search": "attribution + search:.1f", "peak_mib": "peak beyond the model, MiB:,.0f"},
        device, None, figures.growth,
    )  # fmt: skip


def evaluation(options: Namespace) -> str:
    device = torch.device(device_name(options.device))
    rows = throughput(options.model, options.settings, options.questions, options.repetitions, device)
    return results.write(
        options.to, options.typed, f"evaluation_{options.model}_{device.type}",
        f"Evaluation throughput: {options.model}",
        f"{options.questions} questions, answers and likelihoods, medians of {options.repetitions} turns. "
        f"{_seconds(device)}",
        rows,
        {"setting": "", "seconds": "seconds:.2f", "least": "least:.2f", "most": "most:.2f",
         "questions_a_second": "questions a second:.1f", "to_first": f"to {options.settings[0]}:.2f"},
        device,
    )  # fmt: skip


def startup(options: Namespace) -> str:
    return results.write(
        options.to, options.typed, "startup", "Start-up",
        f"Medians of {options.repetitions} starts, each a process of its own. What else the machine does counts by the "
        "clock.",
        starts(options.repetitions),
        {"command": "", "seconds": "by the clock, s:.2f", "processor_seconds": "processor, s:.2f",
         "at_most": "aim, s:.0f"},
        torch.device("cpu"),
    )  # fmt: skip


def _work(options: Namespace) -> Work:
    device, overrides = torch.device(device_name(options.device)), [f"calibration.samples={options.samples}"]
    if (options.shape is None) == (options.model is None):
        raise QigError(f"got shape {options.shape} and model {options.model}; expected one of --shape and --model")
    if options.shape is None:
        return of_model(options.model, [*overrides, *options.overrides], device)
    return of_shape(options.shape, options.blocks, [*overrides, *options.overrides], device)
