"""Markdown of a report as HTML: tables that can be sorted, runs that lead to their records, no link to elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

NUMBER = re.compile(r"^[<≈~]?\s*([+\-−]?\d[\d,]*(?:\.\d+)?(?:e[+\-]?\d+)?)\s*(min|s|h|KiB|MiB|GiB)?(?![\w.])")
UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
SHORT = 10
"""Tables name runs by so many of their letters."""
_PROSE = 60  # letters: a longer cell is a sentence, and may break into lines


def sort_key(text: str) -> float | None:
    """The number that a cell begins with, seconds and bytes brought to one unit; None where there is none.

    ``98.5 [98.0, 99.0]`` -> 98.5; ``<0.001`` -> 0.001; ``2,200`` -> 2200; ``12.5 min`` -> 750; ``w3a16`` -> None.
    """
    found = NUMBER.match(text.strip())
    if found is None:
        return None
    return float(found[1].replace(",", "").replace("−", "-")) * UNITS.get(found[2], 1.0)


def render(text: str, resolve: Callable[[str], str], records: Mapping[str, str]) -> str:
    """HTML of a Markdown text.

    ``resolve``: a relative link to one from the page. ``records``: id of a run to the link to its record. Links with a
    scheme or host lose it and stay as text; HTML in the text is shown as text, apart from ``<ins>``.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    for token in tokens:
        if token.type == "inline":
            token.children = _local(token.children or [], resolve)
    _prepare_tables(tokens, {run[:SHORT]: link for run, link in records.items()})
    html = parser.renderer.render(tokens, parser.options, {})
    return html.replace("&lt;ins&gt;", "<ins>").replace("&lt;/ins&gt;", "</ins>")


def _local(children: Sequence[Token], resolve: Callable[[str], str]) -> list[Token]:
    kept, dropped = [], []
    for token in children:
        if token.type == "link_open":
            address = urlsplit(str(token.attrs["href"]))
            dropped.append(bool(address.scheme or address.netloc))
            if not dropped[-1]:
                token.attrs["href"] = resolve(str(token.attrs["href"]))
        if token.type == "image":  # figures are embedded by the page itself
            continue
        if token.type in ("link_open", "link_close") and dropped and dropped[-1]:
            if token.type == "link_close":
                dropped.pop()
            continue
        if token.type == "link_close":
            dropped.pop()
        kept.append(token)
    return kept


def _prepare_tables(tokens: Sequence[Token], links: Mapping[str, str]) -> None:
    """Give every cell its sorting key, and repeat a first cell that was left empty since the line above has it."""
    above: Sequence[Token] = ()
    for index, token in enumerate(tokens):
        if token.type == "table_open":
            token.attrs["class"] = "sortable"
            above = ()
        if token.type != "td_open":
            continue
        content = tokens[index + 1]
        if tokens[index - 1].type == "tr_open":
            if not content.children:
                content.children = list(above)
            above = content.children
        text = "".join(child.content for child in content.children)
        key = sort_key(re.sub(r"</?ins>", "", text))
        if key is not None:
            token.attrs["data-sort"] = f"{key:.12g}"
        if len(text) > _PROSE:
            token.attrs["class"] = "prose"
        if text in links:
            content.children = _linked(content.children, links[text])


def _linked(children: Sequence[Token], address: str) -> list[Token]:
    opening = Token("link_open", "a", 1, attrs={"href": address})
    return [opening, *children, Token("link_close", "a", -1)]


def heading(text: str) -> str | None:
    """The title of a Markdown text: its first heading of the first or second level."""
    tokens = iter(MarkdownIt("commonmark").parse(text))
    list(takewhile(lambda token: token.tag not in ("h1", "h2"), tokens))
    return next((token.content for token in tokens), None)
