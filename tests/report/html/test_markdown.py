import re

import pytest

from qig.report.html.markdown import heading, render, sort_key


@pytest.mark.parametrize("text, key", [
    ("98.5 [98.0, 99.0]", 98.5), ("-0.4 [-0.7, 0.0]", -0.4), ("+11.5 [+9.8, +13.1]", 11.5), ("<0.001", 0.001),
    ("2,200", 2200.0), ("12.5 min", 750.0), ("0.4 s", 0.4), ("2.3 h", 8280.0), ("1.20 GiB", 1.2 * 2**30),
    ("3.1 MiB", 3.1 * 2**20), ("0.06195 (0.23)", 0.06195), ("1e-05", 1e-5), ("96.4*", 96.4), ("5‡ [4, 6]", 5.0),
    ("–", None), ("", None), ("w3a16", None), ("16 bit", 16.0), ("4bit", None), ("22e379edb7", None), ("1.2.3", None)])
def test_sorting_keys(text, key):
    assert sort_key(text) == (None if key is None else pytest.approx(key))


def rendered(text, records=None):
    return render(text, lambda link: f"sub/{link}", records or {})


TABLE = """## A title

| quant | arm  |     value |        run |
|:------|:-----|----------:|-----------:|
| W3A16 | RTN  | **1.5** s | 5d2c10e947 |
|       | QIG  | <ins>2</ins> min | 0123456789 |
| W4A8  | RTN  |         – |            |
"""


def test_cells_carry_keys_and_repeat_what_the_line_above_says():
    html = rendered(TABLE, {"5d2c10e9472201cb": "records/qig.json"})
    assert '<table class="sortable">' in html and html.count("<tr>") == 4
    assert re.findall(r'data-sort="([^"]+)"', html) == ["1.5", "120", "123456789"]
    assert re.findall(r"<td[^>]*>(W\w+)</td>", html) == ["W3A16", "W3A16", "W4A8"]
    assert '<a href="records/qig.json">5d2c10e947</a>' in html and "0123456789</a>" not in html
    assert "<strong>1.5</strong> s" in html and "<ins>2</ins> min" in html


def test_sentences_in_cells_may_break_into_lines():
    html = rendered(f"| a | b |\n|---|---|\n| short | {'many words ' * 8}|\n| +0.1 [-0.3, +0.4] | 2 |\n")
    assert re.findall(r'<td class="prose">(\w+)', html) == ["many"] and html.count("<td") == 4


def test_links_stay_inside_and_html_is_text():
    html = rendered("[in](data.csv) [out](https://example.org/x) [also](//example.org) <https://example.org> "
                    "![picture](p.png) <script>alert(1)</script> [**bold** in](a/b.json)")
    assert re.findall(r'(?:href|src)="([^"]*)"', html) == ["sub/data.csv", "sub/a/b.json"]
    assert "out" in html and "also" in html and "<script" not in html and "&lt;script&gt;" in html
    assert "<strong>bold</strong> in</a>" in html


def test_the_title():
    assert heading(TABLE) == "A title"
    assert heading("### no title\n\ntext") is None
