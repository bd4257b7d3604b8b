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
    monkeypatch.setattr(gathering, "tabulated", lambda _, overrides: ["table5_gptq"])
    assert main(["all"]) == 1
    assert (tmp_path / "results" / "published_consistency").is_dir()
    assert "10 of 10 runs of table5_gptq" in capsys.readouterr().err


def test_html_is_one_page_of_all_results(tmp_path, capsys):
    assert main(["published_consistency", "--html"]) == 0
    assert "published_consistency" in (tmp_path / "results" / "report.html").read_text()
    assert "results/report.html" in capsys.readouterr().out


def test_wandb_logs_the_cells_and_figures_of_an_experiment(tmp_path, monkeypatch):
    folder, logged = tmp_path / "results" / "bits", []
    folder.mkdir(parents=True)
    (folder / "bits.csv").write_text("arm,runs,vs_CWE\nQIG,12e4567890123456,0.5\n")
    figure = folder / "accuracy_bits.png"
    monkeypatch.setattr(gathering, "gather", lambda *words: words)
    monkeypatch.setattr("qig.report.tables.write.write_experiment", lambda *_: [folder / "bits.csv", figure])
    monkeypatch.setattr("qig.report.__main__.log_report", lambda *given, **about: logged.append((given, about)))
    assert main(["bits", "model=tiny_internvl"]) == 0 and logged == []
    assert main(["bits", "model=tiny_internvl", "--wandb"]) == 0
    ((frame, figures, name, _), about), = logged
    assert frame.to_dict("records") == [{"arm": "QIG", "runs": "12e4567890123456", "vs_CWE": 0.5}]
    assert figure in figures and name == "bits" and about == {"about": {"overrides": ["model=tiny_internvl"]}}


def test_a_report_goes_to_the_project_that_the_overrides_name(tmp_path, monkeypatch, capsys):
    """The one of its jobs; every other override may be a sweep, or lack what the jobs themselves need."""
    (tmp_path / "tableA3_calibration.csv").write_text("runs\n1\n")
    tracked = []
    monkeypatch.setattr(gathering, "gather", lambda *words: words)
    monkeypatch.setattr("qig.report.tables.write.write_experiment", lambda *_: [tmp_path / "tableA3_calibration.csv"])
    monkeypatch.setattr("qig.report.__main__.log_report", lambda _, __, ___, tracking, about: tracked.append(tracking))
    words = ["model=tiny_internvl,tiny_qwen2_vl", "tracking.project=mine", "++tracking.entity=team"]
    assert main(["tableA3_calibration", *words, "--wandb"]) == 0
    (found,) = tracked
    assert (found["project"], found["entity"], found["mode"], found["kind"]) == ("mine", "team", "offline", "wandb")
    for word, said in (("tracking=none", "needs tracking=wandb"), ("tracking.projekt=mine", "projekt")):
        assert main(["tableA3_calibration", word, "--wandb"]) == 1
        assert said in capsys.readouterr().err
    assert len(tracked) == 1


def test_a_folder_has_neither_page_nor_report(tmp_path, capsys):
    (tmp_path / "sweep").mkdir()
    for flag in ("--html", "--wandb"):
        assert main(["sweep", flag]) == 1
        assert "are for experiments" in capsys.readouterr().err


def test_neither_experiment_nor_folder(capsys):
    assert main(["table5"]) == 1
    assert "did you mean 'table5_gptq'" in capsys.readouterr().err
    assert main(["outputs/nowhere"]) == 1
    assert "no run below outputs/nowhere" in capsys.readouterr().err


def test_overrides_of_a_folder_are_refused(tmp_path, capsys):
    (tmp_path / "sweep").mkdir()
    assert main(["sweep", "seed=1"]) == 1
    assert "overrides are for experiments" in capsys.readouterr().err
