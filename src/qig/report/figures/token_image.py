"""Token weights drawn over the image they came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qig.errors import StoreError
from qig.report.figures.identity import identity, subject
from qig.report.figures.style import COLOURS, PAGE, SITES, new_figure
from qig.report.figures.token_sensitivity import colour_bar, colour_limit, relative_weights
from qig.report.records import TOKEN_KINDS, Run

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from qig.data.samples import CalibrationSample

MOST_BLOCKS = 6
FAINTEST = 0.6
"""The grey of black beneath the patches; white is 1."""
COLUMNS = ("run", "method", "model", "setting", "sigma", "sample", "sample_id", "site", "raster", "block", "token",
           "top", "left", "bottom", "right", "weight")


def data(run: Run, sample: int = 0) -> pd.DataFrame:
    """A row a site, block and vision token with its place in the image (fractions); ``attrs["picture"]`` is the image.

    ``weight`` is relative to uniform over all tokens of the sample, as in the heat map. StoreError when the run has
    no weights of single tokens, or its calibration set no longer has the sample; DataError when the tokens' places are
    not known.
    """
    import numpy as np
    import pandas as pd
    from transformers import AutoProcessor

    from qig.data.encoding import images_of
    from qig.models import checkpoint
    from qig.models.classes import FROM_FILES
    from qig.report.patches import patches

    if run.config["sensitivity"].get("granularity") == "modality":
        raise StoreError(f"run {run.id} ({run.method}) gives all vision tokens one weight: nothing to draw")
    chosen = run.sensitivities.select(sample)
    shown = calibration_sample(run, sample)
    directory = checkpoint.resolve(run.config["model"]["path"])
    processor = AutoProcessor.from_pretrained(directory, **FROM_FILES)
    (image,) = images_of(shown, processor)
    vision = np.flatnonzero(chosen.kinds == {kind: code for code, kind in TOKEN_KINDS.items()}["vision"])
    places = patches(processor, checkpoint.model_type(directory), image, len(vision))
    rows = []
    for site in [site for site in SITES if any(site == have for _, have in chosen.weights)]:
        weights = relative_weights(chosen, site)[:, vision]
        rows += [{"sample": sample, "sample_id": shown.id, "site": site, "raster": place.raster, "block": block,
                  "token": place.token, "top": place.top, "left": place.left, "bottom": place.bottom,
                  "right": place.right, "weight": row[place.token]}
                 for block, row in zip(chosen.blocks, weights, strict=True) for place in places]
    frame = pd.DataFrame([identity(run) | row for row in rows])
    frame.attrs["picture"] = image
    return frame


def calibration_sample(run: Run, sample: int) -> CalibrationSample:
    """A calibration sample from the calibration set made anew.

    StoreError when the set now has another sample there, or the sample has not exactly one image.
    """
    from qig.config.recorded import recorded_calibration
    from qig.data.calibration import samples_of

    expected = run.record["stages"]["calibration"]["samples"][sample]
    chosen = next((one for one in samples_of(recorded_calibration(run.record)) if one.id == expected), None)
    if chosen is None:
        raise StoreError(f"calibration sample {expected!r} of run {run.id} is not in its set any more: "
                         f"{run.config['calibration']}")
    if len(chosen.images) != 1:
        raise StoreError(f"calibration sample {expected!r} of run {run.id} has {len(chosen.images)} images, "
                         "expected one")
    return chosen


def draw(frame: pd.DataFrame, picture: Image) -> Figure:
    """The image, then a panel a block; a row a site and raster."""
    import numpy as np
    from matplotlib.colors import LogNorm

    rows = list(frame[["site", "raster"]].drop_duplicates().itertuples(index=False, name=None))
    known = sorted(frame.block.unique())
    blocks = [known[i] for i in np.unique(np.linspace(0, len(known) - 1, min(len(known), MOST_BLOCKS)).round()
                                          .astype(int))]
    width = (PAGE - 1.05) / (len(blocks) + 1)
    height = width * picture.height / picture.width
    figure = new_figure(PAGE, 0.42 + len(rows) * (height + 0.07))
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    panels = figure.subplots(len(rows), len(blocks) + 1, squeeze=False)
    limit = colour_limit([frame.weight.to_numpy()])
    several = frame.raster.nunique() > 1
    for line, (site, raster) in zip(panels, rows, strict=True):
        line[0].imshow(picture, extent=(0, 1, 1, 0), interpolation="nearest", aspect=picture.height / picture.width)
        line[0].set_ylabel(SITES[site] + (f"\n{raster}" if several else ""))
        part = frame[(frame.site == site) & (frame.raster == raster)]
        for axes, block in zip(line[1:], blocks, strict=True):
            drawn = _overlay(axes, part[part.block == block], picture, LogNorm(1 / limit, limit))
    for axes in panels.ravel():
        axes.set(xticks=[], yticks=[])
        axes.spines[["top", "right"]].set_visible(True)
    panels[0, 0].set_title("image")
    for axes, block in zip(panels[0, 1:], blocks, strict=True):
        axes.set_title(f"block {block}")
    colour_bar(figure, drawn, list(panels.ravel()), limit)
    figure.suptitle(f"Weights of vision tokens: {subject(frame)}; {frame.sample_id.iloc[0]}")
    return figure


def _overlay(axes: Axes, part: pd.DataFrame, picture: Image, norm):
    """The pale grey image under patches that let a little of it through: too little to be read as a weight."""
    import numpy as np

    pale = FAINTEST + (1 - FAINTEST) * np.asarray(picture.convert("L")) / 255
    aspect = picture.height / picture.width
    axes.imshow(pale, cmap="gray", vmin=0, vmax=1, extent=(0, 1, 1, 0), interpolation="nearest", aspect=aspect)
    weights = _grid(part)
    return axes.imshow(np.maximum(weights, 1e-12), cmap=COLOURS, norm=norm, extent=(0, 1, 1, 0), aspect=aspect,
                       interpolation="nearest", alpha=0.7)


def _grid(part: pd.DataFrame) -> np.ndarray:
    return part.pivot(index="top", columns="left", values="weight").to_numpy()
