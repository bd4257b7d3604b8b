"""Strategies: JSON-like values, valid documents with a part replaced, texts and bytes with damage."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

NUMBERS = st.one_of(
    st.integers(-3, 300), st.integers(-(10**30), 10**30), st.floats(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, 1e308, -0.0]),
)  # fmt: skip
NAMES = ("../../etc/passwd", "/etc/passwd", "..", ".", "", "a/../../b", "C:\\a", "\0", "\ud800", "a" * 300, "é\n")
TEXTS = st.one_of(st.text(max_size=12), st.sampled_from(NAMES))
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)


def places(value: Any, here: tuple = ()) -> list[tuple]:
    """The path of every part of a nested value."""
    found = [here]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [place for key, inner in items for place in places(inner, (*here, key))]


@st.composite
def changed(draw, valid: Any) -> Any:
    """A valid document in which up to three parts are replaced, removed or doubled."""
    value = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        here = draw(st.sampled_from(places(value)))
        if not here:
            if draw(st.integers(0, 9)) == 0:
                return draw(VALUES)
            continue
        parent = value
        for key in here[:-1]:
            parent = parent[key]
        how = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if how == "replace":
            parent[here[-1]] = draw(VALUES)
        elif how == "remove":
            del parent[here[-1]]
        elif isinstance(parent, dict):
            parent[draw(TEXTS)] = draw(VALUES)
        else:
            parent.append(copy.deepcopy(parent[here[-1]]))
    return value


@st.composite
def damaged(draw, valid: bytes) -> bytes:
    """Valid bytes that are cut, or in which a few bytes are changed, inserted or repeated."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(content), 1)))
        how = draw(st.sampled_from(["cut", "set", "insert", "repeat"]))
        if how == "cut":
            del content[at:]
        elif how == "set":
            content[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif how == "insert":
            content[at:at] = draw(st.binary(max_size=8))
        else:
            content[at:at] = content[at : at + 16] * draw(st.integers(1, 3))
    return bytes(content)


DEEP = [b"[" * 5000, b'{"a":' * 5000, b"[" * 500 + b"]" * 500, b"\xff\xfe\x00", b"", b"null", b"NaN", b"1" * 5000]


def documents(valid: Any) -> st.SearchStrategy[bytes]:
    """The bytes of a JSON file: a changed document, damaged text, or nothing of the kind."""
    text = json.dumps(valid).encode()
    as_json = changed(valid).map(lambda value: json.dumps(value).encode())
    any_json = VALUES.map(lambda value: json.dumps(value).encode())
    return st.one_of(as_json, as_json, damaged(text), st.sampled_from(DEEP), any_json)
