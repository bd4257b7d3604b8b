"""``python -m qig.report.exponents``: how far do token weights move the search?

For each input that is scaled the search chooses an exponent. Weights that leave them all where the control has them
quantize the very same model, unless they enter the scales in another way, too (``equalization.statistic``). The
command reads an experiment's folder in ``results/`` and the run records beside it, counts for each arm the inputs
whose exponent is not the one that the first control has with the same calibration seed, and sets beside it what
another calibration seed does to the control.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qig.commands import told
from qig.errors import StoreError
from qig.experiment.gather import table_of
from qig.experiment.spec import Table
from qig.report.figures.style import SITES
from qig.report.tables.markdown import pipe
from qig.report.tables.written import named_by, record, sidecar
from qig.store.files import write_text

Exponents = dict[tuple[int, str], float]
"""Block and site to the exponent that the search chose there."""


def exponents_of(run: dict[str, Any]) -> Exponents:
    """Of the sites that the search of a recorded run looked at."""
    return {(site["block"], site["site"]): site["exponent"] for site in run.get("sites") or ()
            if site.get("exponents")}


def moved(pairs: Iterable[tuple[Exponents, Exponents]]) -> dict[str, float]:
    """Shares of the sites at which the two of a pair differ; both must have been searched at the same ones.

    Returns ``moved`` (mean over the pairs), ``least``, ``most``, and for each of :data:`SITES` that was searched its
    own mean.
    """
    shares, by_site = [], {}
    for one, other in pairs:
        differ = {place: one[place] != other[place] for place in one}
        shares.append(float(np.mean(list(differ.values()))))
        for name in SITES:
            if found := [value for (_, site), value in differ.items() if site == name]:
                by_site.setdefault(name, []).append(float(np.mean(found)))
    return {"moved": float(np.mean(shares)), "least": min(shares), "most": max(shares),
            **{name: float(np.mean(found)) for name, found in by_site.items()}}


def data(folder: Path) -> tuple[pd.DataFrame, Table]:
    """A row a cell of the experiment in ``folder``, with the columns of :func:`moved`; and how it is tabulated.

    The control's row compares it with itself under another calibration seed, all pairs of seeds; it is missing where
    there is one seed. Arms that were not searched at the control's inputs (RTN, GPTQ) have no row.

    Raises:
        StoreError: the folder is no experiment's, a record is missing, or no arm was searched where the control was.
    """
    written = sidecar(folder)
    table = table_of(written["experiment"], written["overrides"])
    if not table.controls or "arm" not in (*table.rows, *table.columns):
        raise StoreError(f"experiment {written['experiment']} has no arms and control to compare")
    control = table.controls[0]
    rows = []
    for cell in (cell for cell in written["cells"] if cell["metric"] == table.metrics[0]):
        own = [exponents_of(record(folder, run)) for run in cell["runs"]]
        others = [exponents_of(record(folder, run)) for run in cell.get(f"vs_{control}_runs", ())]
        pairs = list(combinations(own, 2)) if cell["arm"] == control else list(zip(own, others, strict=False))
        if pairs and all(one and one.keys() == other.keys() for one, other in pairs):
            named = {key: cell[key] for key in named_by(table)} | {"arm": cell["arm"]}
            rows.append({**named, "pairs": len(pairs), "inputs": len(own[0]), **moved(pairs)})
    if all(row["arm"] == control for row in rows):
        raise StoreError(f"{folder}: no arm was searched where {control} was; expected an experiment whose arms search")
    return pd.DataFrame(rows), table


def page(frame: pd.DataFrame, table: Table, command: str) -> str:
    """The numbers in Markdown, in percent."""
    control, keys = table.controls[0], named_by(table)
    sites = [name for name in SITES if name in frame]
    lines = [[*(table.label(key, row[key]) for key in keys), _arm(table, row["arm"]), str(row["pairs"]),
              _percent(row["moved"]), f"{_percent(row['least'])} to {_percent(row['most'])}",
              *(_percent(row[name]) for name in sites)] for row in frame.to_dict("records")]
    heads = [*keys, "arm", "pairs", "moved, %", "least to most", *(f"{SITES[name]}, %" for name in sites)]
    about = (
        f"Of {_counts(frame)} inputs that are scaled, the share at which an arm's search chose another exponent than "
        f"that of {table.label('arm', control)} with the same calibration seed. {_arm(table, control)}: what one "
        f"calibration seed chose beside another.\n\n{pipe(heads, lines, len(keys) + 1)}\n\nMade by `{command}`."
    )
    return f"## Exponents that the weights move\n\n{about}\n"


def _arm(table: Table, arm: str) -> str:
    return f"{table.label('arm', arm)}, other seeds" if arm == table.controls[0] else table.label("arm", arm)


def _counts(frame: pd.DataFrame) -> str:
    return " or ".join(map(str, sorted(set(frame["inputs"]))))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 after a message about what cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m qig.report.exponents", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an experiment's folder, such as results/real_weights; written into")
    folder = parser.parse_args(arguments).folder
    return told("qig.report.exponents", lambda: print(*_write(folder), sep="\n"))


def _write(folder: Path) -> list[Path]:
    frame, table = data(folder)
    written = [folder / "exponents.csv", folder / "exponents.md"]
    write_text(written[0], frame.to_csv(index=False))
    write_text(written[1], page(frame, table, f"python -m qig.report.exponents {folder.as_posix()}"))
    return written


if __name__ == "__main__":
    sys.exit(main())
