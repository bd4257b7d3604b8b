"""README and notebooks: what they show is what the repository holds."""

from __future__ import annotations

import json
import re
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


def test_committed_results_come_from_committed_code():
    records = [json.loads(path.read_text()) for path in (ROOT / "results" / "first_run" / "records").glob("*.json")]
    assert {record["method"] for record in records} == {"none", "rtn", "mbq", "qig"}
    assert all(record["environment"]["git"]["dirty"] is False for record in records)
    assert len({record["environment"]["git"]["commit"] for record in records}) == 1


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "docs/EVALUATION.md"])
def test_links_lead_somewhere(document):
    file = ROOT / document
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", file.read_text())
    assert [link for link in links if not (file.parent / link).exists()] == []


@pytest.mark.parametrize(
    "group", ["model", "quant", "method", "sensitivity", "equalization", "rounding", "evaluation", "tracking"]
)
def test_readme_names_every_choice(group):
    row = next(line for line in README.splitlines() if line.startswith(f"| `{group}` |"))
    choices = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
    assert set(re.findall(r"`(\w+)`", row)) - {group} == choices


def test_commands_of_the_readme_compose(compose):
    text = README.replace("\\\n", " ")
    commands = [line.partition("#")[0].split() for line in text.splitlines() if line.startswith("qig ")]
    overrides = [[word for word in words[1:] if "=" in word] for words in commands]
    assert len(overrides) >= 8
    for words in overrides:
        compose(*(word.partition(",")[0] if "[" not in word else word for word in words))


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
