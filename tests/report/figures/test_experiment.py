import pandas as pd
import pytest

from qig.errors import ConfigError
from qig.experiment.spec import Table
from qig.report.figures.experiment import write_experiment_figures
from qig.report.records import load_run


@pytest.fixture
def experiment(store):
    """Two bit widths, a control arm and QIG at each; the clip is off in the second QIG run."""
    arms, lines = [], []
    for bits in (2, 3):
        quant = {"name": f"w{bits}a16", "weights": {"bits": bits}, "activations": None}
        store.run(f"c{bits}", method="awq", config={"quant": quant}, sites=[])
        store.run(f"q{bits}", config={"quant": quant, "sensitivity.clip": "none" if bits == 3 else "iqr",
                                      "sensitivity.clip_factor": 1.5})
        for arm, name in (("CWE", f"c{bits}"), ("QIG, ours", f"q{bits}")):
            arms.append((arm, load_run(store.root, name)))
            own = float("nan") if arm == "CWE" else 0.01
            lines.append({"quant": f"w{bits}a16", "arm": arm, "metric": "accuracy", "value": 0.9, "low": 0.8,
                          "high": 0.95, "vs_CWE": own, "vs_CWE_low": own, "vs_CWE_high": own, "runs": name})
    return pd.DataFrame(lines), arms, Table("T", "C.", ["quant", "arm"], ["accuracy"], ["CWE"])


def test_every_asked_figure_is_written_once(experiment, tmp_path):
    kinds = ["method_differences", "accuracy_bits", "calibration_cost", "score_distribution"]
    written = write_experiment_figures(*experiment, tmp_path, kinds)
    assert [path.name for path in written if path.suffix == ".csv"] == [
        "method_differences_cwe.csv", "accuracy_bits.csv", "calibration_cost.csv", "score_distribution_qig_q3.csv"]
    bits = pd.read_csv(tmp_path / "accuracy_bits.csv")
    assert set(bits.label) == {"CWE", "QIG, ours"} and set(bits.weight_bits) == {2, 3} and set(bits.accuracy) == {90}
    assert list(pd.read_csv(tmp_path / "method_differences_cwe.csv").run) == ["q2", "q3"]


def test_what_the_experiment_lacks_is_said_and_the_rest_is_drawn(experiment, tmp_path, caplog):
    kinds = ["completeness_nodes", "token_image", "calibration_cost"]
    written = write_experiment_figures(*experiment, tmp_path, kinds)
    assert {path.name for path in written} == {f"calibration_cost{suffix}" for suffix in (".csv", ".pdf", ".png")}
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "figure completeness_nodes is not drawn: no completeness against nodes" in caplog.text
    assert "figure token_image is not drawn" in caplog.text


def test_figures_of_runs_that_are_no_more_go(experiment, tmp_path):
    cells, arms, table = experiment
    folder = tmp_path / "figures"
    kinds = ["score_distribution", "accuracy_bits"]
    earlier = write_experiment_figures(cells, arms, table, folder, kinds)
    assert {path.name for path in folder.iterdir()} == {path.name for path in earlier}
    (folder / "table.csv").write_text("not a figure's\n")
    (folder / "token_image_qig_q3.input.png").write_bytes(b"what an earlier figure was drawn over")
    left = [pair for pair in arms if pair[1].id != "q3"]  # the only one whose scores can be drawn
    now = write_experiment_figures(cells, left, table, folder, ["score_distribution", "calibration_cost"])
    assert {path.name for path in folder.iterdir()} == {"table.csv", *(path.name for path in now)}
    assert [path.stem for path in now if path.suffix == ".csv"] == ["calibration_cost"]


def test_an_unknown_figure_is_refused(experiment, tmp_path):
    with pytest.raises(ConfigError, match="unknown figure 'forest'"):
        write_experiment_figures(*experiment, tmp_path, ["forest"])
