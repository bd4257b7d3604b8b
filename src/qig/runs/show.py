"""``qig-runs show RUN``: one run's configuration, stages, results, costs, and where it was computed."""

from __future__ import annotations

import argparse
import json

import yaml

from qig.runs.lookup import find_run, stages
from qig.store import find_damage

PARTS = ("checkpoint", "data", "metrics", "timings", "memory", "model_bytes", "environment", "determinism", "versions")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="an id, its beginning, or the output folder of a job")
    parser.add_argument("--json", action="store_true", help="the whole record as it is stored")


def run(options: argparse.Namespace) -> int:
    found = find_run(options.run, options.store)
    if options.json:
        print(json.dumps(found.record, indent=1))
        return 0
    print(f"run {found.id}: {found.model} {found.setting} {found.method}, {found.record.get('created')}\n")
    for kind, key in {"runs": found.id, **stages(found)}.items():
        folder = found.store / kind / key
        print(f"  {kind:10} {folder}  {find_damage(folder) or 'verified'}")
    samples = (found.record["stages"].get("calibration") or {}).get("samples") or ()
    if samples:
        print(f"  calibrated on {len(samples)} samples: {', '.join(samples[:3])}{', ...' if len(samples) > 3 else ''}")
    shown = {"config": found.config} | {part: found.record[part] for part in PARTS if part in found.record}
    print("\n" + yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), end="")
    return 0
