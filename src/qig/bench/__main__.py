"""``qig-bench``: time, memory and accuracy of a calibration, beside the published cost structure."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from qig.bench.shapes import SHAPES
from qig.commands import told

HERE = Path("results/benchmarks")
MODELS = ("tiny_qwen2_vl", "tiny_llava_onevision", "tiny_internvl")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 where something cannot be measured."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(arguments)
    options.typed = shlex.join(["qig-bench", *arguments])
    from qig.bench import commands
    from qig.environment import quiet

    quiet()
    return told("qig-bench", lambda: print(getattr(commands, options.command)(options)))


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(
        prog="qig-bench",
        description=__doc__,
        epilog="Seconds are those of the processor, all threads of the process together, so that what else the machine "
        "does counts little; with an accelerator those of the clock. Results go to JSON, a table and a figure. "
        "docs/PERFORMANCE.md says what they mean.",
    )
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(
            name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        one.add_argument("--to", type=Path, default=HERE, help="folder for the results")
        one.add_argument("--device", default="auto", help="cpu, cuda, ...; auto: the first accelerator")
        return one

    def sized(one: argparse.ArgumentParser, blocks: int, samples: int) -> None:
        one.add_argument("--shape", choices=SHAPES, help="random weights of these sizes")
        one.add_argument("--model", choices=MODELS, help="an embedded model instead of a shape")
        one.add_argument("--blocks", type=int, default=blocks, help="decoder blocks of a shape")
        one.add_argument(
            "--samples", type=int, default=samples, help="calibration samples; of a shape: about 400 tokens each"
        )
        one.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the configuration")

    one = command("calibration", "One calibration by stages, foreseen (as plan=true does it) and measured.")
    sized(one, 2, 32)

    one = command(
        "published", "QIG, its release and AWQ beside a plain implementation of the published cost structure."
    )
    sized(one, 1, 32)
    one.add_argument("--few", type=int, default=4, help="samples for plain and release, slow and linear in them")
    one.add_argument("--settings", nargs="+", default=["w3a16"], help="bit settings")
    one.add_argument("--methods", nargs="+", default=["plain", "qig", "awq"], help="which ones")
    one.add_argument("--repetitions", type=int, default=5, help="turns; medians are reported")

    one = command("accuracy", "Token weights and chosen scales against a rule of many nodes.")
    one.add_argument("--models", nargs="+", default=list(MODELS), help="embedded models")
    one.add_argument("--settings", nargs="+", default=["w3a16", "w4a8"], help="bit settings")
    one.add_argument("--samples", type=int, default=2, help="calibration samples")
    one.add_argument("--nodes", type=int, default=1024, help="of the reference, a midpoint rule")

    one = command("scaling", "Time and peak memory against samples, blocks, and where activations wait.")
    one.add_argument("--shape", choices=SHAPES, required=True, help="random weights of these sizes")
    one.add_argument("--setting", default="w3a16", help="bit setting")
    one.add_argument("--samples", type=int, nargs="+", default=[2, 4, 8, 16], help="for QIG")
    one.add_argument("--plain", type=int, nargs="+", default=[2, 16], help="for the plain implementation")

    one = command("evaluation", "Throughput of the benchmark in 16 bits and with fake-quantized layers.")
    one.add_argument("--model", choices=MODELS, default=MODELS[0], help="an embedded model")
    one.add_argument(
        "--settings", nargs="+", default=["fp16", "w3a16", "w4a8"], help="bit settings; ratios are to the first"
    )
    one.add_argument("--questions", type=int, default=40, help="of the embedded benchmark")
    one.add_argument("--repetitions", type=int, default=5, help="turns; medians are reported")

    one = command("startup", "Start-up of qig --help and of a run that the store answers.")
    one.add_argument("--repetitions", type=int, default=5, help="turns; medians are reported")
    return whole


if __name__ == "__main__":
    sys.exit(main())
