"""What printed numbers contradict: an average that is not that of its row, an accuracy that no count can give."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import ROUND_DOWN, ROUND_HALF_DOWN, ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

from qig.evaluation.datasets import QUESTIONS
from qig.report.published.numbers import Number, numbers

if TYPE_CHECKING:
    import pandas as pd

ITEMS = {task: QUESTIONS[task] for task in ("mmmu_val", "chartqa", "ai2d", "scienceqa_img")}
"""Items of benchmarks that score each item right or wrong: an accuracy is a multiple of 1/N."""
WHOLE = ("qig", "bfq")
"""Sources that are known to print two decimals of the whole benchmarks of these names."""
AVERAGED = {
    "qig": ("vizwiz_vqa_val", "mmmu_val", "chartqa", "ai2d", "scienceqa_img"),
    "bfq": ("vizwiz_vqa_val", "mmmu_val", "chartqa", "ai2d", "scienceqa_img"),
    "mbq": ("mmmu_val", "seedbench", "ocrbench", "vizwiz_vqa_val", "scienceqa_img", "textvqa_val"),
    "splitq": ("mmmu_val", "seedbench", "ocrbench", "vizwiz_vqa_val", "scienceqa_img", "textvqa_val"),
}
"""The benchmarks behind a source's ``average``; checked where a row prints all of them."""
LISTED = "mean of "
"""How a note begins that says what an average is over, where it is not its source's usual."""


def averaged_over(average: Number) -> tuple[str, ...]:
    """The benchmarks behind a printed average; none where they are not known."""
    if not average.note.startswith(LISTED):
        return AVERAGED.get(average.reported_by, ())
    names = average.note.removeprefix(LISTED).partition(";")[0].split(", ")
    return tuple(names) if all(name.isidentifier() for name in names) else ()


def possible(value: str, items: int) -> bool:
    """Whether some whole number of right answers out of ``items`` is printed as ``value`` percent.

    Either way of rounding a half is taken for right, and so is cutting off.
    """
    printed = Decimal(value)
    nearest = int(printed * items / 100)
    return any(
        (Decimal(100 * right) / items).quantize(printed, rounding) == printed
        for right in range(max(0, nearest - 1), nearest + 3)
        for rounding in (ROUND_HALF_UP, ROUND_HALF_DOWN, ROUND_DOWN)
    )


def testable_counts() -> list[Number]:
    """Printed accuracies that can be held against a number of items."""
    return [one for one in numbers() if one.metric in ITEMS and one.reported_by in WHOLE]


def rows() -> Iterator[tuple[Number, list[Number]]]:
    """Each printed average whose row prints all of its cells, with the cells."""
    table: dict[tuple, dict[str, Number]] = {}
    for one in numbers():
        key = (one.paper, one.reported_by, one.table, one.model, one.setting, one.method, one.variant)
        table.setdefault(key, {})[one.metric] = one
    for cells in table.values():
        average = cells.get("average")
        names = averaged_over(average) if average else ()
        if names and all(name in cells for name in names):
            yield average, [cells[name] for name in names]


def published_consistency() -> pd.DataFrame:
    """One line a contradiction: where it is printed, what is printed, what would be possible.

    ``check``: ``average`` (expected: the mean of the row's cells; more than rounding or cutting off can explain),
    ``count`` (expected: the nearest possible accuracies) or ``other table`` (a cell that another table contradicts;
    expected: what stands there). ``.attrs["tested"]``: check and source to the number of cells tested.
    """
    import pandas as pd

    lines, tested = [], {}
    for average, cells in rows():
        tested["average", average.reported_by] = tested.get(("average", average.reported_by), 0) + 1
        mean = sum(Decimal(one.value) for one in cells) / len(cells)
        slack = _last_digit(average.value) + max(_last_digit(one.value) for one in cells)
        if abs(mean - Decimal(average.value)) > slack:
            lines.append(_line("average", average, f"{mean:.2f}"))
    for one in testable_counts():
        tested["count", one.reported_by] = tested.get(("count", one.reported_by), 0) + 1
        if not possible(one.value, ITEMS[one.metric]):
            items = ITEMS[one.metric]
            below = int(Decimal(one.value) * items / 100)
            near = " or ".join(f"{Decimal(100 * right) / items:.4f}" for right in (below, below + 1))
            lines.append(_line("count", one, f"{near} (of {items})"))
    lines += [_line("other table", one, one.note.partition(": ")[2]) for one in numbers()
              if one.metric != "average" and "INCONSISTENT" in one.note]
    frame = pd.DataFrame(lines)
    frame.attrs["tested"] = tested
    return frame


def _last_digit(value: str) -> Decimal:
    return Decimal(1).scaleb(Decimal(value).as_tuple().exponent)


def _line(check: str, one: Number, expected: str) -> dict[str, str]:
    return {"check": check, "reported_by": one.reported_by, "table": one.table, "model": one.model,
            "setting": one.setting, "method": one.method, "variant": one.variant, "metric": one.metric,
            "printed": one.value, "expected": expected}
