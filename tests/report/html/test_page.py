import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from qig.errors import StoreError
from qig.report.html.__main__ import main
from qig.report.html.page import write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
RESULTS = Path(__file__).resolve().parents[3] / "results"


class Page(HTMLParser):
    """Elements with their attributes, and which tags were left open."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def results(tmp_path):
    """One experiment whose sidecar names a shared record, one folder with a record of its own."""
    root = tmp_path / "results"
    record = {"id": "5d2c10e9472201cb", "method": "qig", "config": {"model": {"name": "tiny"}, "quant": {"name": "w3"}}}
    for folder in ("bits", "first run", "records", "first run/records"):
        (root / folder).mkdir(parents=True)
    (root / "records" / "5d2c10e9472201cb.json").write_text(json.dumps(record))
    (root / "first run" / "records" / "rtn.json").write_text(json.dumps(record | {"id": "a" * 16, "method": "rtn"}))
    (root / "bits" / "bits.json").write_text(json.dumps({"runs": {"5d2c10e9472201cb": {}}}))
    (root / "bits" / "bits.csv").write_text("a\n1\n")
    (root / "bits" / "bits.md").write_text(
        "## Bits & <b>bobs</b>\n\n| arm | value | run |\n|:--|--:|--:|\n| b | 10.0 [9, 11] | 5d2c10e947 |\n"
        "| c | – | |\n| a | 9.5 | |\n| d | -2 | |\n")
    Image.new("RGB", (220, 110), "red").save(root / "bits" / "accuracy_bits.png")
    (root / "bits" / "accuracy_bits.csv").write_text("run\n")
    Image.new("RGB", (5, 5)).save(root / "first run" / "token_image_x.input.png")
    Image.new("RGB", (5, 5)).save(root / "first run" / "token_image_x.png")
    return root


def test_the_page_has_everything_and_nothing_from_elsewhere(results):
    text = write_page(results).read_text()
    page = Page(text)
    assert page.open == []
    assert [section["id"] for section in page.of("section")] == ["bits", "first run"]
    assert [image["src"][:22] for image in page.of("img")] == ["data:image/png;base64,"] * 2
    assert base64.b64decode(page.of("img")[0]["src"][22:]) == (results / "bits" / "accuracy_bits.png").read_bytes()
    assert page.of("img")[0]["alt"] == "Accuracy against the bits of a weight."
    assert not page.of("link") and not any("src" in script for script in page.of("script"))
    assert not re.search(r"https?://|url\(|@import", re.sub(r"base64,[\w+/=]+", "", text))
    assert "Bits &amp; &lt;b&gt;bobs&lt;/b&gt;" in text


def test_links_lead_to_files_beside_the_page(results, tmp_path):
    for target in (None, tmp_path / "elsewhere" / "page.html"):
        page = write_page(results, target)
        links = [a["href"] for a in Page(page.read_text()).of("a")]
        files = [link for link in links if not link.startswith("#")]
        assert all((page.parent / link.replace("%20", " ")).is_file() for link in files)
        ends = [link.rpartition("/")[2] for link in files]
        # from the table's cell and from the list of the sidecar's runs
        assert ends.count("5d2c10e9472201cb.json") == 2 and ends.count("rtn.json") == 1
        assert "bits.csv" in ends and ends.count("accuracy_bits.csv") == 1


def test_the_same_results_give_the_same_page(results):
    assert write_page(results).read_bytes() == write_page(results).read_bytes()


def test_an_empty_folder_is_refused(tmp_path, capsys):
    with pytest.raises(StoreError, match="nothing to report"):
        write_page(tmp_path)
    assert main([str(tmp_path)]) == 1 and "nothing to report" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_the_committed_results_make_a_page(tmp_path):
    page = Page(write_page(RESULTS, tmp_path / "report.html").read_text())
    ids = {section["id"] for section in page.of("section")}
    assert {"overview", "first_run"} <= ids
    assert len([table for table in page.of("table") if table.get("class") == "sortable"]) >= 10


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("column, clicks, order", [(1, 1, "dabc"), (1, 2, "badc"), (0, 1, "abcd"), (0, 2, "dcba")])
def test_a_click_sorts_and_what_has_no_value_stays_last(results, tmp_path, column, clicks, order):
    text = write_page(results).read_text()
    click = f'document.querySelectorAll("thead th")[{column}].click();' * clicks
    (tmp_path / "clicked.html").write_text(text.replace("</body>", f"<script>{click}</script></body>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
             f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "clicked.html").as_uri()]
    shown = subprocess.run([CHROMIUM, *flags], capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"<td[^>]*>([abcd])</td>", shown)
    assert "".join(rows) == order
