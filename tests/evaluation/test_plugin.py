import tomllib
from pathlib import Path

import pytest

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A distribution with the entry points that pyproject.toml declares."""
    points = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]
    lines = [
        f"[{group}]\n" + "\n".join(f"{name} = {value}" for name, value in values.items())
        for group, values in points.items()
    ]
    folder = tmp_path / "qig_under_test-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: qig-under-test\nVersion: 0\n")
    (folder / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)


def test_lmms_eval_finds_the_model_by_its_entry_point(installed):
    from lmms_eval.models.registry_v2 import ModelRegistryV2

    from qig.evaluation.chat_model import QigChatModel

    registry = ModelRegistryV2()
    registry.load_entrypoint_manifests()
    assert registry.resolve("qig").model_type == "chat"
    assert registry.get_model_class("qig") is QigChatModel
