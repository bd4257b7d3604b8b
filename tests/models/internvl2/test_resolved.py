"""A published InternVL2 directory is opened like any other: converted once, into the cache."""

from __future__ import annotations

import pytest
import torch

from families import internvl2 as published
from qig.config.schema import Model, Outliers
from qig.models import checkpoint
from qig.models.loading import load


@pytest.mark.parametrize("text", ["internlm2", "qwen2"])
def test_resolved_to_its_conversion(tmp_path, monkeypatch, text):
    monkeypatch.setenv("QIG_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "published"
    folder.mkdir()
    published.write(folder, text=text)
    found = checkpoint.resolve(str(folder))
    assert found.parent == tmp_path / "cache" / "converted" and checkpoint.model_type(found) == "internvl"
    made = (found / "config.json").stat().st_mtime_ns
    assert checkpoint.resolve(str(folder)) == found and (found / "config.json").stat().st_mtime_ns == made
    with monkeypatch.context() as patch:  # another version of what converts, another conversion
        patch.setattr("qig.config.sources.code_version", lambda parts: f"changed {parts}")
        assert checkpoint.resolve(str(folder)) != found
    loaded = load(Model("x", str(folder), "float32", Outliers(0.0, 0)), torch.device("cpu"))
    assert len(loaded.blocks) and loaded.image_token_ids
    (folder / "config.json").write_text((folder / "config.json").read_text().replace('"template"', '"template" '))
    assert checkpoint.resolve(str(folder)) != found  # other content, another conversion
