"""Secrets never reach a record, a log, Hydra's copies of the configuration, or W&B."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

import forked
from qig.errors import ConfigError
from qig.secrets import HIDDEN, masked, refuse_in_config, refuse_in_words, without_secrets

TOKEN = "hf_" + "aB3" * 10
KEY = "0123456789abcdef" * 2 + "01234567"
URLS = ("https://user:pass-word@host/model", "https://t0ken@host/a", "s3://id:secret@bucket/a?x=1#y")
HARMLESS = (
    "OpenGVLab/InternVL2-8B", "/data/coco@2017/a.png", "https://host/a@b", "max_tokens=64", "hf_hub", "sk-learn",
    "user@host", "gh_", "a: b@c", "model.name=me@home",
)  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("SHORT_TOKEN", "x")


@pytest.mark.parametrize("text", [TOKEN, KEY, *URLS])
def test_secrets_are_masked_wherever_they_stand(text):
    for whole in (text, f"model.path={text}", f"cannot fetch '{text}': 404\nmore"):
        assert HIDDEN in masked(whole)
        for part in (TOKEN, KEY, "pass-word", "t0ken", "secret"):
            assert part not in masked(whole)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_one_is_left_alone(text):
    assert masked(text) == text
    refuse_in_words([f"model.name={text}"])
    refuse_in_config({"model": {"name": text}})


@pytest.mark.parametrize("text", [TOKEN, KEY, *URLS])
def test_a_configuration_with_a_secret_is_refused_without_showing_it(text):
    for refuse in (
        lambda: refuse_in_words(["method=rtn", f"model.path={text}"]),
        lambda: refuse_in_config({"seed": 0, "model": {"path": text}}),
        lambda: refuse_in_config({"model": {"path": [None, {"x": text}]}}),
    ):
        with pytest.raises(ConfigError, match=r"^model\.path.* holds a secret") as caught:
            refuse()
        assert text not in str(caught.value)


@pytest.mark.parametrize("word", ["+hf_token=abc", "tracking.api_key=abc", "++x.password=abc", "wandb-api-key=abc"])
def test_keys_that_name_a_secret(word):
    with pytest.raises(ConfigError, match="holds a secret"):
        refuse_in_words([word])
    refuse_in_words([word.replace("=abc", "="), word.replace("=abc", "=null"), "model.outliers.sigma=0", "-m", "--cfg"])
    with pytest.raises(ConfigError, match=r"^a\.api_key holds a secret"):
        refuse_in_config({"a": {"api_key": 3}})


@pytest.mark.parametrize(
    "word",
    [f"hydra.launcher.setup=[export WANDB_API_KEY={'ab12' * 10}]",
     f"hydra.job.env_set={{WANDB_API_KEY: {'ab12' * 10}}}",
     "hydra.launcher.setup=['export HF_TOKEN=\"abc\"','module load cuda']"],
)  # fmt: skip
def test_secrets_inside_what_hydra_is_told_to_set(word):
    """They would be written into the job's folder and the submission script."""
    with pytest.raises(ConfigError, match=r"^hydra\.\S+ holds a secret") as caught:
        refuse_in_words([word])
    assert "ab12" not in str(caught.value)


def test_variables_by_name_and_settings_of_other_kinds_may_be_set():
    refuse_in_words(["hydra.launcher.setup=[export HF_TOKEN=$HF_TOKEN,export OMP_NUM_THREADS=4]",
                     "hydra.job.env_set={HF_HOME: /data/hub, OMP_NUM_THREADS: 1}", "hydra.launcher.account=lab",
                     "calibration.shares={captions: 2, ocr: 1}"])  # fmt: skip


def test_copies_without_secrets():
    given = {"path": URLS[0], "hf_token": "abc", "none_token": None, "list": [TOKEN, 3], "max_tokens": 5}
    assert without_secrets(given) == {
        "path": f"https://{HIDDEN}@host/model", "hf_token": HIDDEN, "none_token": None, "list": [HIDDEN, 3],
        "max_tokens": 5,
    }  # fmt: skip


def run(tmp_path: Path, *overrides: str, **variables: str):
    """The command in a process of its own; everything that it leaves below ``tmp_path``."""
    arguments = [f"hydra.run.dir={tmp_path / 'out'}", f"hydra.sweep.dir={tmp_path / 'out'}",
                 f"store={tmp_path / 'store'}", f"tracking.dir={tmp_path}"]  # fmt: skip
    done = forked.run(forked.command(*overrides, *arguments), tmp_path, variables)
    left = {f: f.read_text(errors="replace") for f in tmp_path.rglob("*") if f.is_file() and f.name != "secret.yaml"}
    return done, left


def nowhere(secret: str, done, left) -> None:
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "holds a secret" in said and "Traceback" not in said
    assert secret not in said
    assert not [file for file, text in left.items() if secret in text]


def test_the_command_refuses_before_anything_is_written(tmp_path):
    nowhere("pass-word", *run(tmp_path, f"model.path={URLS[0]}", "method=rtn"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("many", [False, True])
def test_a_secret_in_a_file_is_in_no_copy_of_it(tmp_path, many):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    file = tmp_path / "conf" / "experiment" / "secret.yaml"
    file.write_text(f"# @package _global_\nmodel:\n  path: {URLS[0]}\n")
    found = run(tmp_path, *["-m"] * many, f"hydra.searchpath=[file://{tmp_path / 'conf'}]", "+experiment=secret")
    nowhere("pass-word", *found)


def test_a_secret_from_the_environment(tmp_path):
    nowhere(TOKEN, *run(tmp_path, "model.name=${oc.env:HF_TOKEN}", "method=rtn", HF_TOKEN=TOKEN))


def test_what_a_failed_job_leaves_is_masked(tmp_path):
    from types import SimpleNamespace

    from omegaconf import OmegaConf

    from qig.report.sweep import _note

    overrides = ["method=rtn", f"model.path={URLS[0]}"]
    config = OmegaConf.create({"hydra": {"runtime": {"output_dir": str(tmp_path)}, "overrides": {"task": overrides}}})
    _note(config, "failed", f"OSError: {TOKEN} {KEY}")
    left = (tmp_path / "job.json").read_text()
    assert json.loads(left)["error"] == f"OSError: {HIDDEN} {HIDDEN}" and "pass-word" not in left
    assert SimpleNamespace and logging
