"""README and notebooks: what they show is what the repository holds."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from qig.report.figures.files import figure_of, figure_tables, kind_of
from qig.report.figures.style import DPI, styled

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_readme_shows_the_committed_results():
    table = (ROOT / "results" / "first_run" / "comparison.md").read_text()
    shown = README.partition("<!-- results/first_run -->\n")[2].partition("<!-- end -->")[0].strip()
    assert shown
    assert table.startswith(shown)


def test_readme_shows_the_committed_findings():
    table = (ROOT / "results" / "findings" / "findings.md").read_text()
    shown = README.partition("<!-- results/findings -->\n")[2].partition("<!-- end -->")[0].strip()
    assert shown.startswith("### Accuracy") and "### NLL" in shown
    assert f"\n\n{shown}\n\nMeasured: " in table


def test_readme_shows_the_committed_study_of_pretrained_weights():
    table = (ROOT / "results" / "text_methods" / "text_methods.md").read_text()
    shown = README.partition("<!-- results/text_methods -->\n")[2].partition("<!-- end -->")[0].strip()
    assert shown.startswith("### NLL") and f"\n\n{shown}\n\n### Accuracy" in table


def test_export_document_shows_the_committed_measurement():
    table = (ROOT / "results" / "export_speed" / "benchmark.md").read_text().strip()
    assert f"<!-- results/export_speed -->\n{table}\n<!-- end -->" in (ROOT / "docs" / "EXPORT.md").read_text()


def test_committed_results_come_from_committed_code():
    records = [json.loads(path.read_text()) for path in (ROOT / "results" / "first_run" / "records").glob("*.json")]
    assert {record["method"] for record in records} == {"none", "rtn", "mbq", "qig"}
    assert all(record["environment"]["git"]["dirty"] is False for record in records)
    assert len({record["environment"]["git"]["commit"] for record in records}) == 1


def test_committed_records_name_no_place_of_the_machine_they_were_made_on():
    records = [json.loads(path.read_text()) for path in (ROOT / "results").glob("**/records/*.json")]
    assert len(records) > 100
    assert {record["config"]["store"] for record in records} == {"outputs/store"}


DOCUMENTS = ["README.md", "ARCHITECTURE.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    file = ROOT / document
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", file.read_text())
    assert [link for link in links if not (file.parent / link).exists()] == []


GROUPS = (
    "model", "quant", "method", "sensitivity", "equalization", "rounding", "calibration", "evaluation", "tracking"
)  # fmt: skip


@pytest.mark.parametrize("group", GROUPS)
def test_readme_names_every_choice(group):
    row = next(line for line in README.splitlines() if line.startswith(f"| `{group}` |"))
    choices = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
    assert set(re.findall(r"`(\w+)`", row)) - {group} == choices


@pytest.mark.parametrize("document", ["README.md", "docs/CALIBRATION.md"])
def test_commands_of_the_documents_compose(compose, document):
    text = (ROOT / document).read_text().replace("\\\n", " ")
    commands = [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith("qig ")]
    overrides = [[word for word in words[1:] if "=" in word] for words in commands]
    assert len(overrides) >= 6
    for words in overrides:
        compose(*(word.partition(",")[0] if not {"[", "{"} & set(word) else word for word in words))


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def run_anew(book, folder, tmp_path, monkeypatch):
    """``book``, executed in ``folder``; what each of its cells shows."""
    monkeypatch.setenv("QIG_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return [kinds_of(cell) for cell in code_cells(book)]


SMALLER = (
    ("samples=32", "samples=2"),
    ("limit=440", 'limit=11", "equalization.points=4", "sensitivity.max_nodes=4'),
    ("samples(16,", "samples(2,"),
)


def test_the_notebook_of_a_run_runs_anew(tmp_path, monkeypatch):
    """With fewer samples, questions, exponents and nodes, which change no output's kind."""
    book = nbformat.read(ROOT / "notebooks" / "reading_a_run.ipynb", as_version=4)
    committed = [kinds_of(cell) for cell in code_cells(book)]
    for size, smaller in SMALLER:
        (cell,) = (cell for cell in code_cells(book) if size in cell.source)
        cell.source = cell.source.replace(size, smaller)
    assert run_anew(book, ROOT / "notebooks", tmp_path, monkeypatch) == committed


def test_the_notebook_of_figures_runs_anew(tmp_path, monkeypatch):
    """On the first figures of two kinds; the committed one shows all but the differences to shuffled weights."""
    book = nbformat.read(ROOT / "notebooks" / "figures.ipynb", as_version=4)
    committed = [kinds_of(cell) for cell in code_cells(book)]
    tables = [table for table in figure_tables(ROOT / "results") if not table.stem.endswith("permuted")]
    first = dict(list({kind_of(table): table for table in reversed(tables)}.items())[:2])
    for table in first.values():
        folder = tmp_path / "results" / table.parent.relative_to(ROOT / "results")
        folder.mkdir(parents=True, exist_ok=True)
        for file in table.parent.glob(f"{table.stem}.*"):
            shutil.copy(file, folder)
    (tmp_path / "notebooks").mkdir()
    shown = run_anew(book, tmp_path / "notebooks", tmp_path, monkeypatch)
    assert shown == [*committed[:-1], committed[-1][: 2 * len(first)]]
    assert committed[-1] == ["text/markdown", "image/png"] * len(tables)


def code_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def kinds_of(cell):
    """What a cell shows: the richest kind of each output."""
    return [next((kind for kind in ("image/png", "text/html", "text/markdown") if kind in output.get("data", {})),
                 output.output_type) for output in cell.outputs]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebooks_show_what_they_found(notebook):
    cells = code_cells(nbformat.read(notebook, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [kind for cell in cells for kind in kinds_of(cell)]
    assert "image/png" in kinds and "text/html" in kinds
    assert not {"stream", "error"} & set(kinds)
    assert notebook.stat().st_size < 3_000_000


def test_the_two_subjects_of_the_notebooks():
    assert {"reading_a_run", "figures"} == {path.stem for path in NOTEBOOKS}


def some_of_each_kind() -> list[Path]:
    """The first and the last committed figure of every kind: one takes a second to draw."""
    kinds: dict[str, list[Path]] = {}
    for table in figure_tables(ROOT / "results"):
        kinds.setdefault(kind_of(table), []).append(table)
    return sorted({table for tables in kinds.values() for table in (tables[0], tables[-1])})


@pytest.mark.parametrize("table", some_of_each_kind(), ids=lambda path: path.stem)
def test_committed_figures_are_drawn_from_their_data(table, tmp_path):
    """By the pixels of the PNG; PDFs are compared byte by byte in report/figures."""
    png = tmp_path / "ours.png"
    with styled():
        figure = figure_of(table)
        figure.draw_without_rendering()  # as for the PDF: the layout settles at its second turn
        figure.savefig(png, dpi=DPI)
    ours, committed = (np.asarray(Image.open(path).convert("RGB"), float) for path in (png, table.with_suffix(".png")))
    assert ours.shape == committed.shape
    assert np.abs(ours - committed).mean() < 1  # of 255: another processor may round a pixel otherwise
