"""How an experiment is tabulated: the ``table`` part of its YAML, typed; unknown keys are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from qig.errors import ConfigError, choices


@dataclass(frozen=True)
class Published:
    """Which printed numbers stand beside the measured ones.

    ``reported_by``, ``table``: as in ``report/published/paper_numbers.csv``. ``metrics``: its metric keys, a column
    each. ``models``: our model to the paper's; a model that is not listed stands for itself. ``arms``: arm to
    ``method`` or ``{method, variant}``; ``%(key)s`` in a variant is the row's value of that key. ``setting``: the
    table's, where it differs from the run's own.
    """

    reported_by: str
    table: str
    metrics: list[str]
    arms: dict[str, Any]
    models: dict[str, str] = field(default_factory=dict)
    setting: str | None = None


@dataclass(frozen=True)
class Table:
    """``rows``, ``columns``: the keys that name a line and spread over columns: ``arm``, or dotted configuration keys.

    ``metrics``: names in ``qig.report.metrics``. ``controls``: arms that every other arm is compared with, the first
    of them in tests. ``references``: arms that are shown and never ranked, such as 16 bit. ``over``: swept keys that
    are averaged over, such as ``seed``. ``shown``: the arms that the table is about (none named: all); the others only
    serve as controls, and no claim is made of them. ``labels``: key to value to what is printed. ``on_request``: run
    and written only when it is named, since it needs what has to be fetched first.
    """

    title: str
    caption: str
    rows: list[str]
    metrics: list[str]
    controls: list[str]
    columns: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    over: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    labels: dict[str, dict[Any, str]] = field(default_factory=dict)
    published: Published | None = None
    on_request: bool = False

    def label(self, key: str, value: Any) -> str:
        """What is printed for ``value`` of ``key``."""
        return str(self.labels.get(key, {}).get(value, str(value).upper() if key == "quant" else value))


def read_table(found: Mapping[str, Any] | None, arms: Mapping[str, Any], experiment: str = "this experiment") -> Table:
    """The ``table`` part as plain data, checked against the arms.

    Raises:
        ConfigError: there is none; a key is unknown, missing or of the wrong kind; an arm does not exist.
    """
    from qig.report.metrics import METRICS
    from qig.report.published.numbers import check_published

    if not found:
        raise ConfigError(f"{experiment} has no hydra.sweeper.table: nothing says how it is tabulated")
    values = dict(found)
    if values.get("published") is not None:
        values["published"] = _typed(Published, values["published"], f"{experiment}: table.published")
    table = _typed(Table, values, f"{experiment}: table")
    if table.published:
        check_published(table.published)
    if not (table.rows and table.metrics and table.controls):
        raise ConfigError(f"{experiment}: rows, metrics and controls of a table need at least one entry each")
    for metric in table.metrics:
        if metric not in METRICS:
            raise ConfigError(choices(metric, METRICS, "metric"))
    named = {*table.controls, *table.references, *table.shown, *(table.published.arms if table.published else ())}
    for arm in sorted(named - set(arms)):
        raise ConfigError(choices(arm, arms, f"arm in the table of {experiment}"))
    shown = table.shown or list(arms)
    if "arm" not in [*table.rows, *table.columns] and len(shown) > 1:
        raise ConfigError(f"{experiment}: {len(shown)} arms, but neither rows nor columns name 'arm'")
    return table


def chosen_arms(arms: Mapping[str, Any], only: Sequence[str] | None, table: Table | None) -> dict[str, Any]:
    """The arms that are run: those named, and the table's controls and references, without which it says nothing.

    ``only``: ``None`` or empty for all.

    Raises:
        ConfigError: one that is named does not exist.
    """
    for arm in only or ():
        if arm not in arms:
            raise ConfigError(choices(arm, arms, "arm in hydra.sweeper.only"))
    kept = {*only, *(() if table is None else (*table.controls, *table.references))} if only else set(arms)
    return {arm: words for arm, words in arms.items() if arm in kept}


def read_figures(found: Sequence[str] | None) -> tuple[str, ...]:
    """The kinds of figure that an experiment shows; ConfigError for one that does not exist."""
    from qig.report.figures import OF_RUN, OF_SAMPLE, OF_SWEEP

    known = (*OF_SAMPLE, *OF_RUN, *OF_SWEEP)
    for kind in found or ():
        if kind not in known:
            raise ConfigError(choices(kind, known, "figure"))
    return tuple(found or ())


def _typed(kind: type, values: Mapping[str, Any], place: str) -> Any:
    known = {one.name: one for one in fields(kind)}
    for key in values:
        if key not in known:
            raise ConfigError(choices(key, known, f"key in {place}"))
    for name, one in known.items():
        if name not in values:
            if one.default is MISSING and one.default_factory is MISSING:
                raise ConfigError(f"{place}.{name} is missing; expected {one.type}")
            continue
        wanted = next((t for t in (list, dict, str, bool) if str(one.type).startswith(t.__name__)), object)
        if not isinstance(values[name], wanted):
            raise ConfigError(f"{place}.{name}={values[name]!r}: expected {one.type}")
    return kind(**values)
