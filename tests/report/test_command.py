"""qig-report: experiments, published numbers, and its refusals."""

import pytest

from qig.experiment import gather as gathering
from qig.report.__main__ import main


@pytest.fixture(autouse=True)
def empty_store(tmp_path, monkeypatch):
    monkeypatch.setenv("QIG_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)


def test_missing_runs_end_with_a_message_and_nothing_written(tmp_path, capsys):
    assert main(["table5_gptq", "model=tiny_internvl"]) == 1
    message = capsys.readouterr().err
    assert "5 of 5 runs of table5_gptq" in message and "make them: qig -m +experiment=table5_gptq" in message
    assert not (tmp_path / "results").exists()


def test_published_numbers_need_no_run(tmp_path, capsys):
    assert main(["published_consistency", "--to", "kept"]) == 0
    assert {path.suffix for path in (tmp_path / "kept" / "published_consistency").iterdir()} == {".csv", ".md", ".tex"}


def test_all_writes_what_there_is_and_names_the_rest(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gathering, "tabulated", lambda: ["table5_gptq"])
    assert main(["all"]) == 1
    assert (tmp_path / "results" / "published_consistency").is_dir()
    assert "10 of 10 runs of table5_gptq" in capsys.readouterr().err


def test_neither_experiment_nor_folder(capsys):
    assert main(["table5"]) == 1
    assert "did you mean 'table5_gptq'" in capsys.readouterr().err
    assert main(["outputs/nowhere"]) == 1
    assert "no run below outputs/nowhere" in capsys.readouterr().err


def test_overrides_of_a_folder_are_refused(tmp_path, capsys):
    (tmp_path / "sweep").mkdir()
    assert main(["sweep", "seed=1"]) == 1
    assert "overrides are for experiments" in capsys.readouterr().err
