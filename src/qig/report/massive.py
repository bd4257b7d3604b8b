"""``python -m qig.report.massive``: do the token weights of a run find the tokens with massive activations?

Language models keep a few activations thousands of times larger than the others, at the first token and at delimiters
(Sun et al., arXiv 2402.17762). The command runs the 16-bit model on the run's calibration samples, finds those tokens
block by block in the residual stream, and sets beside them what the run's weights say of them, as a table and the
figure ``massive_tokens``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata

from qig.blockwise.capture import recording
from qig.commands import told
from qig.config import default_store
from qig.data.calibration import CalibrationBatch
from qig.data.tokens import TokenKind
from qig.errors import StoreError
from qig.models.loading import LoadedModel
from qig.report.figures.identity import identity
from qig.report.figures.style import SITES
from qig.report.figures.token_sensitivity import relative_weights
from qig.report.records import Run
from qig.runs.lookup import find_run

LEAST, TIMES = 100.0, 1000.0
"""Massive, as Sun et al. have it: |x| above LEAST, and above TIMES the median |x| of the same residual stream."""
CLASSES = ("massive", "first", "vision", "template", "line break", "punctuation", "word")
CPU = torch.device("cpu")


@torch.no_grad()
def massive_tokens(loaded: LoadedModel, batches: Sequence[CalibrationBatch]) -> tuple[np.ndarray, np.ndarray]:
    """Largest |x| of each token in front of each block, ``[blocks, tokens]``, and which of them are massive (boolean).

    Tokens are the real ones of all samples, in the order of the calibration set.
    """
    largest: dict[int, list[torch.Tensor]] = {}
    every: list[list[torch.Tensor]] = [[] for _ in loaded.blocks]
    for batch in batches:
        with recording({str(index): block for index, block in enumerate(loaded.blocks)}) as calls:
            loaded.model(**batch.inputs, use_cache=False, logits_to_keep=1)
        states = [calls[str(index)].x.float().abs() for index in range(len(loaded.blocks))]
        for index, x in enumerate(states):
            every[index].append(x[batch.real].flatten())
        for row, position in enumerate(batch.order):
            real = batch.real[row]
            largest[position] = [x[row][real].amax(-1) for x in states]
    found = np.stack([torch.cat([largest[position][index] for position in sorted(largest)]).numpy()
                      for index in range(len(loaded.blocks))])
    medians = np.array([[float(torch.cat(values).median())] for values in every])
    return found, (found > LEAST) & (found > TIMES * medians)


def classes_of(texts: Sequence[str], sample: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """What a token is by place, kind and text.

    ``first`` of its sample, else ``vision`` (of a picture), ``template`` (what template, processor and tokenizer
    added), or by its text ``line break``, ``punctuation`` or ``word``. ``sample`` and ``kinds`` are ``[tokens]``.
    """
    first = np.concatenate([[True], sample[1:] != sample[:-1]])
    named = ["line break" if "\n" in text else "word" if any(letter.isalnum() for letter in text) else "punctuation"
             for text in texts]
    cases = {"first": first, "vision": kinds == TokenKind.VISION, "template": kinds == TokenKind.SPECIAL}
    return np.select(list(cases.values()), list(cases), named)


def data(run: Run, massive: np.ndarray, classes: np.ndarray) -> pd.DataFrame:
    """A row a site and class of tokens: how many there are, and their weight.

    Args:
        massive: ``[blocks, tokens]``; ``classes``: ``[tokens]``. A massive token is counted in its own class as well.

    Columns: :data:`~qig.report.figures.massive_tokens.COLUMNS`. ``share``: of all tokens (of all blocks); ``weight``:
    mean relative to uniform; ``weight_share``: of the sum of weights; ``top``: how many of the class are among the
    tenth of their sample's tokens with the largest weights; ``auc``: probability that one of the class weighs more than
    one that is not (0.5: no relation).
    """
    chosen = run.sensitivities
    rows = []
    for site in (name for name in SITES if any(place == name for _, place in chosen.weights)):
        blocks = [block for block in chosen.blocks if (block, site) in chosen.weights]
        weights = np.concatenate([_relative(run, site, int(sample)) for sample in np.unique(chosen.sample)], axis=1)
        ranks = np.concatenate([_upper(weights[:, chosen.sample == sample]) for sample in np.unique(chosen.sample)], 1)
        for name in CLASSES:
            inside = massive[blocks] if name == "massive" else np.broadcast_to(classes == name, weights.shape)
            if inside.any():
                rows.append({"site": site, "class": name, **_numbers(weights, ranks, inside)})
    return pd.DataFrame(identity(run), index=range(len(rows))).join(pd.DataFrame(rows))


def _relative(run: Run, site: str, sample: int) -> np.ndarray:
    """Weights of one sample relative to uniform, of the blocks that have the site."""
    chosen = run.sensitivities.select(sample)
    found = relative_weights(chosen, site)
    return found[[index for index, block in enumerate(chosen.blocks) if (block, site) in chosen.weights]]


def _upper(weights: np.ndarray) -> np.ndarray:
    """Rank from the top as a share of a sample's tokens, ``[blocks, tokens]``: at most 0.1 is the first tenth."""
    return np.stack([1 - (rankdata(row, "average") - 0.5) / len(row) for row in weights])


def _numbers(weights: np.ndarray, ranks: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    count, others = int(inside.sum()), int((~inside).sum())
    order = rankdata(weights)
    auc = (order[inside.ravel()].sum() - count * (count + 1) / 2) / (count * others) if others else np.nan
    return {"tokens": count, "share": count / inside.size, "weight": float(weights[inside].mean()),
            "weight_share": float(weights[inside].sum() / weights.sum()), "top": float((ranks[inside] <= 0.1).mean()),
            "auc": float(auc)}


def table(frame: pd.DataFrame, about: str) -> str:
    """The numbers in Markdown."""
    from tabulate import tabulate

    rows = [[SITES[row["site"]], row["class"], f"{100 * row['share']:.2f}", f"{row['weight']:.2f}",
             f"{100 * row['weight_share']:.1f}", f"{100 * row['top']:.0f}", f"{row['auc']:.2f}"]
            for row in frame.to_dict("records")]
    heads = ["site", "tokens", "share of tokens, %", "mean weight (uniform: 1)", "share of the weight, %",
             "in the top tenth, %", "AUC"]
    lines = tabulate(rows, heads, "pipe", disable_numparse=True)
    return f"# Massive activations and token weights\n\n{about}\n\n{lines}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 after a message about what cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m qig.report.massive", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="id of a run that weighs tokens, or its beginning")
    parser.add_argument("--store", type=Path, default=default_store(), help="where the run is (default: %(default)s)")
    parser.add_argument("--to", type=Path, required=True, help="folder to write the table and the figure into")
    options = parser.parse_args(arguments)
    return told(
        "qig.report.massive", lambda: print(*_write(find_run(options.run, options.store), options.to), sep="\n")
    )


def _write(run: Run, folder: Path) -> list[Path]:
    from qig.environment import quiet
    from qig.report.figures.files import write
    from qig.store.files import write_text

    quiet()
    loaded, batches = _again(run)
    largest, massive = massive_tokens(loaded, batches)
    ids = {position: batch.inputs["input_ids"][row][batch.real[row]].tolist()
           for batch in batches for row, position in enumerate(batch.order)}
    decode = loaded.processor.tokenizer.decode
    texts = [decode([token]) for position in sorted(ids) for token in ids[position]]
    classes = classes_of(texts, run.sensitivities.sample, run.sensitivities.kinds)
    frame = data(run, massive, classes)
    about = (
        f"{run.model}, {run.setting}, {run.method}, run `{run.id}`. Massive: |x| of the residual stream in front of a "
        f"block above {LEAST:g} and above {TIMES:g} times its median. Largest |x|: {largest.max():,.0f}. Massive "
        f"tokens over all blocks, by class: {_counted(classes, massive)}; by text: {_counted(texts, massive)}."
    )
    written = write("massive_tokens", frame, folder, f"{run.method}_{run.id[:10]}")
    page = folder / f"massive_tokens_{run.method}_{run.id[:10]}.md"
    write_text(page, table(frame, about))
    return [page, *written]


def _counted(names: Sequence[str], massive: np.ndarray, most: int = 8) -> str:
    """How often each name is that of a massive token, the most frequent ones first."""
    counts = pd.Series(np.broadcast_to(np.array(names), massive.shape)[massive]).value_counts(sort=True).head(most)
    return ", ".join(f"{name!r} {count}" for name, count in counts.items()) or "none"


def _again(run: Run) -> tuple[LoadedModel, list[CalibrationBatch]]:
    """The run's 16-bit model and calibration batches.

    Raises:
        StoreError: the samples are not those that the run was calibrated on.
    """
    from qig.config.recorded import recorded_calibration, typed
    from qig.config.schema import Model
    from qig.data.calibration import calibration_data, digest
    from qig.models.loading import load

    loaded = load(typed(Model, run.config["model"]), CPU)
    calibration = recorded_calibration(run.record)
    batches = calibration_data(calibration, loaded.processor, loaded.model, loaded.image_token_ids).batches
    if digest(batches) != run.record["stages"]["calibration"]["sha256"]:
        raise StoreError(f"run {run.id} was calibrated on other samples than its set now has")
    return loaded, batches


if __name__ == "__main__":
    sys.exit(main())
