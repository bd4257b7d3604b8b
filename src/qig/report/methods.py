"""``python -m qig.report.methods``: docs/METHODS.md, the matrix of methods, from the registries and ``conf/method``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name

from omegaconf import DictConfig, OmegaConf

from qig.about import About
from qig.commands import told
from qig.config import conf_dir
from qig.config.sources import METHODS
from qig.equalization import EQUALIZERS
from qig.rounding import ROUNDERS
from qig.sensitivity import ESTIMATORS
from qig.store.files import write_text

GROUPS = tuple(METHODS)
DESTINATION = Path(__file__).resolve().parents[3] / "docs" / "METHODS.md"
HEAD = """# Methods

A method is `sensitivity` x `equalization` x `rounding`; a combination that cannot work (MBQ's weights
without images, for one) is refused, all others run. Made by `python -m qig.report.methods` from the classes themselves:
change those, not this file.

lambda: token weights, 0 at padding. f: the inspected module of a site (attention, o_proj, MLP, down_proj), of output
y; x: its input in the exact stream, x_q in the quantized one; x': the reference; w, w_q: weights and quantized weights;
t: tokens, c, h: channels, n: samples; err: mean over channels of a token's squared (`loss: mse`) or absolute error;
L: the supervised loss. Costs are passes of f per site and micro-batch unless they say otherwise, on top of the
forward passes of the streams.
"""
CHOICES = """## Where papers are silent, or codes do otherwise

* Uniform weights count every token of the calibration set alike, as AWQ and GPTQ do; QIG's sum to 1 in each sample.
  With samples of unequal length that is a difference of its own: `sensitivity=uniform sensitivity.normalize=sample`
  is without it, and QIG's own shuffled weights (`sensitivity.control=permuted`) always are.
* Controls of any weights: `permuted` shuffles them over a sample's tokens, `modality_mean` keeps their means over
  vision and over text alone, `first_mean` the first token's own and the mean of all others;
  `without_first` gives a sample's first token none.
* MBQ's weights follow the error that they enter (`sensitivity.balance`), as MBQ writes both: the tokens of a modality
  share its weight where that is squared (`per_modality`: the search's default, GPTQ, GPTAQ and the clipping), and each
  has it whole where it is absolute (`per_token`). One vector serves a run: a search by absolute errors decides for what
  rounds behind it, too.
* MBQ's ratio of gradients is one of all tokens of the set together; its code averages over samples first. The tokens
  that end a turn have no weight.
* GPTAQ's term has a quarter of its size, as in its authors' code (`rounding.asymmetry=1`: as in the paper), and its
  inputs are not rounded to integers. All columns behind q take up w_q's asymmetry, as in the paper; in the authors'
  code those beyond the block of 128 columns take up that of Q(w_q).
* QIG's integral takes as many nodes as its completeness residual asks for, from `sensitivity.nodes` (four times as many
  at attention from a zero reference, where errors cancel between tokens and a small residual says little) to
  `max_nodes`, and none at linear sites, where it has a closed form. So many always: `sensitivity.nodes=N
  sensitivity.max_nodes=N sensitivity.closed_form=false` (the experiment `nodes`).
* In 16-bit arithmetic the residual has a floor, the rounding of the modules' own sums: nodes are doubled no more where
  that did not halve it. With 8-bit weights all that QIG integrates is of that size: give `model.dtype=float32` for
  `quant=w8a8`.
* Under grouped-query attention, where v_proj is narrower than o_proj, the input of o_proj (`attn_out`) is not scaled,
  as in the released codes; `equalization.share_attn_out=true` shares one scale over the heads of a group.
* In float16 the loss is multiplied by 4,096 for its backward pass, and gradients are divided by it again: many a vision
  token's would be 0 otherwise.
* `granularity`: `modality` a mean over the vision tokens and one over all others, prompt and template included (MBQ's
  second one is of answers alone); `token` every token its own weight, 0 at those of the chat template ("not special"
  in the tables), whatever the control; `token_special` (the default) those of the template their own, too. `normalize`:
  over each `sample`, or over the `corpus`.
* QIG's scores are clipped at Q1 - 1.5 IQR and Q3 + 1.5 IQR within each sample (`sensitivity.clip`).
* The released QIG (`qig_release`) departs from its paper: absolute error in the search; 32 left Riemann points, also
  where there is a closed form; in W3A16 uniform weights at the first five sites; in W4A8 the clipping is computed but
  not applied, the gradient goes through the exact branch alone, activations are quantized within f, scores are a
  thousand times as large, x' is x_q as the stream has it, not on the activations' grid, and the search reads x_q. (At
  the first site x' = x there: all weights are 0 in the released code, which takes no scale then; here they are
  uniform.) Each is a value of `conf/sensitivity/qig_release.yaml` and `conf/method/qig_release.yaml`.
* The released MBQ (`mbq_release`) takes the absolute error; in W4A8 it compares f(x) with what quantized linears make
  of x_q, whose statistic it takes, too (`equalization.stream=both`).
"""


def page() -> str:
    """The whole page."""
    tables = [
        ("Sensitivity: a weight per token", _registry(ESTIMATORS)),
        ("Equalization: a scale per input channel", _registry(EQUALIZERS, none="keep the channels as they are")),
        ("Rounding: weights to integers", _registry(ROUNDERS, none="keep the weights in 16 bits (`quant=fp16`)")),
        ("Presets: `method=`", _presets()),
    ]
    return "\n".join([HEAD, *(f"## {title}\n\n{table}\n" for title, table in tables), CHOICES])


def _registry(registry: Mapping[str, str], none: str | None = None) -> str:
    rows = [] if none is None else [("none", none, "0", "nothing", "-")]
    for name, member in registry.items():
        about: About = resolve_name(member).about
        rows.append((name, f"`{about.formula}`", about.cost, about.needs, about.source))
    return _table(("name", "formula", "cost", "needs", "source"), rows)


def _presets() -> str:
    rows = []
    for file in sorted((conf_dir() / "method").glob("*.yaml")):
        preset = OmegaConf.load(file)
        chosen = {key.removeprefix("override /"): name for entry in preset.defaults for key, name in entry.items()}
        changes = [f"`{change}`" for group in GROUPS for change in _changes(group, preset.get(group))]
        rows.append((file.stem, *(chosen[group] for group in GROUPS), ", ".join(changes) or "-", _comment(file)))
    return _table(("method", *GROUPS, "with", "what it is"), rows)


def _changes(group: str, values: DictConfig | None) -> list[str]:
    plain = OmegaConf.to_container(values, resolve=False) if values is not None else {}
    return [f"{group}.{key}={value}" for key, value in plain.items()]


def _comment(file: Path) -> str:
    """The comment below the package line."""
    lines = (line for line in file.read_text().splitlines() if line.startswith("# ") and "@package" not in line)
    return " ".join(line.removeprefix("# ").strip() for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 after a message about what cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m qig.report.methods", description=__doc__)
    parser.add_argument("--output", type=Path, default=DESTINATION, help="the file to write (default: docs/METHODS.md)")
    output = parser.parse_args(arguments).output
    return told("qig.report.methods", lambda: _write(output))


def _write(output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, page())


if __name__ == "__main__":
    sys.exit(main())
