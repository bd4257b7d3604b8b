"""Published numbers beside the cells of an experiment, in columns of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qig.experiment.gather import Found
from qig.report.published.numbers import counterpart
from qig.report.tables.places import places

if TYPE_CHECKING:
    import pandas as pd


def with_published(found: Found, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with, at the first metric's lines, ``published_METRIC`` as printed, and ``published_source``.

    Without a published counterpart the frame is returned as it is.
    """
    published = found.table.published
    if published is None:
        return frame
    frame = frame.copy()
    made = places(found)
    # The first metric's lines are the first ones, in the order of the cells.
    for metric in published.metrics:
        cells = [counterpart(published, place.arm, place.runs[0].model, place.runs[0].setting, metric, place.keys)
                 for place in made]
        column = [None if one is None else one.value for one in cells]
        frame[f"published_{metric}"] = column + [None] * (len(frame) - len(made))
    source = [f"{published.reported_by} {published.table}, "
              f"{published.models.get(place.runs[0].model, place.runs[0].model)}" for place in made]
    own = frame[[f"published_{metric}" for metric in published.metrics]].notna().any(axis=1)
    frame["published_source"] = (source + [None] * (len(frame) - len(made)))
    frame.loc[~own, "published_source"] = None
    return frame
