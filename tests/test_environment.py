"""What a record says of the place: enough to set it up again, and no secret."""

from __future__ import annotations

import json

import torch

from qig.environment import environment


def test_only_listed_variables_are_shown(monkeypatch):
    for name in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PASSWORD", "QIG_STORE"):
        monkeypatch.setenv(name, "s3cr3t-value")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = environment(torch.device("cpu"))
    assert found["variables"]["OMP_NUM_THREADS"] == "1"
    assert "s3cr3t-value" not in json.dumps(found)


def test_packages_threads_and_code():
    found = environment(torch.device("cpu"))
    assert found["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert found["cpu"]["threads"] == torch.get_num_threads() and found["device"] == "cpu"
    assert found["git"] is None or len(found["git"]["commit"]) == 40
