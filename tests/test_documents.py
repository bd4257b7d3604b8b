"""README and notebooks: what they show is what the repository holds."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_readme_shows_the_committed_results():
    table = (ROOT / "results" / "first_run" / "comparison.md").read_text()
    shown = README.partition("<!-- results/first_run -->\n")[2].partition("<!-- end -->")[0].strip()
    assert shown
    assert table.startswith(shown)


def test_export_document_shows_the_committed_measurement():
    table = (ROOT / "results" / "export_speed" / "benchmark.md").read_text().strip()
    assert f"<!-- results/export_speed -->\n{table}\n<!-- end -->" in (ROOT / "docs" / "EXPORT.md").read_text()


def test_committed_results_come_from_committed_code():
    records = [json.loads(path.read_text()) for path in (ROOT / "results" / "first_run" / "records").glob("*.json")]
    assert {record["method"] for record in records} == {"none", "rtn", "mbq", "qig"}
    assert all(record["environment"]["git"]["dirty"] is False for record in records)
    assert len({record["environment"]["git"]["commit"] for record in records}) == 1


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


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_run(notebook, tmp_path, monkeypatch):
    from report.fabricated import Store

    matplotlib.use("agg")
    store = Store(tmp_path / "outputs" / "store")
    for method in ("none", "rtn", "mbq", "qig"):
        store.run(f"{method}0", method=method, quantized=method != "none")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    names: dict = {}
    cells = json.loads(notebook.read_text())["cells"]
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code")
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{notebook.name}:{cell['id']}", "exec"), names)
