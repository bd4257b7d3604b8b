"""A table for a paper: a document of its own with booktabs, whose ``table`` environments can be taken over."""

from __future__ import annotations

from collections.abc import Sequence

from qig.report.tables.layout import Section, Text

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "–": "--", "—": "---", "†": r"\dag{}", "‡": r"\ddag{}", "±": r"$\pm$", "×": r"$\times$", "σ": r"$\sigma$",
    "λ": r"$\lambda$", "…": r"\ldots{}",
}  # fmt: skip
HEAD = r"""\documentclass{article}
\usepackage[a4paper,landscape,margin=15mm]{geometry}
\usepackage[utf8]{inputenc}
\usepackage{booktabs}
\usepackage{graphicx}
\pagestyle{empty}
\begin{document}
"""


def latex(heading: str, caption: str, parts: Sequence[Section], notes: Sequence[str]) -> str:
    """The whole document: each section a ``table``, the notes within the last one, so that they are taken over, too."""
    tables = [_float(f"{heading}: {part.title}. {caption}", part, notes if part is parts[-1] else ())
              for part in parts]
    return HEAD + "\n".join([*tables, r"\end{document}", ""])


def escape(text: str) -> str:
    """``text`` with everything that LaTeX would take for a command in LaTeX's spelling."""
    return "".join(SPECIAL.get(letter, letter) for letter in text)


def _float(caption: str, part: Section, notes: Sequence[str]) -> str:
    columns = len(part.keys)
    form = "l" * columns + "".join("r" * len(heads) for _, heads in part.groups)
    over, rules, start = [""] * columns, [], columns + 1
    for group, heads in part.groups:
        over.append(rf"\multicolumn{{{len(heads)}}}{{c}}{{{escape(group)}}}")
        rules.append(rf"\cmidrule(lr){{{start}-{start + len(heads) - 1}}}")
        start += len(heads)
    lines = [r"\begin{table}[htbp]", r"\centering", rf"\caption{{{escape(caption)}}}",
             r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%", rf"\begin{{tabular}}{{{form}}}",
             r"\toprule"]
    if any(group for group, _ in part.groups):
        lines += [_line(over), " ".join(rules)]
    lines += [_line([escape(head) for head in [*part.keys, *(head for _, heads in part.groups for head in heads)]]),
              r"\midrule"]
    for index, (keys, cells) in enumerate(part.lines):
        if index in part.blocks:
            lines.append(r"\midrule")
        first = keys[0] if len(keys) == 1 or index == 0 or index in part.blocks else ""
        lines.append(_line([*map(escape, [first, *keys[1:]]), *map(_cell, cells)]))
    below = [r"\par\smallskip\raggedright\footnotesize", *(escape(note) + r"\par" for note in notes)] if notes else []
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", *below, r"\end{table}"])


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(cell: Text) -> str:
    text = _number(cell.text)
    text = {"best": r"\textbf{%s}", "second": r"\underline{%s}"}.get(cell.mark, "%s") % text
    text += r"$^{*}$" if cell.claim else ""
    text += r"\ddag{}" if cell.doubtful else ""
    return text + (rf" {{\scriptsize {_number(cell.bounds)}}}" if cell.bounds else "")


def _number(text: str) -> str:
    """A hyphen before a digit is a minus sign."""
    return escape(text).replace("-", r"$-$") if text[:1] in "-+[" else escape(text)
