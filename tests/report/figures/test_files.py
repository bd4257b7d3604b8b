import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import qig
from qig.errors import StoreError
from qig.report.comparison import Compared
from qig.report.figures import KINDS
from qig.report.figures.__main__ import main
from qig.report.figures.collect import worth_a_picture, write_all
from qig.report.figures.files import figure_tables, kind_of, redraw
from qig.report.records import load_run


@pytest.fixture
def rows(store):
    """Runs that between them have the data of every figure but those that need a model."""
    full = {"quant": {"name": "fp16", "weights": None, "activations": None}}
    store.run("full", method="none", quantized=False, config=full)
    bits = {2: "w2a16", 3: "w3a16"}
    quant = {b: {"name": name, "weights": {"bits": b}, "activations": None} for b, name in bits.items()}
    for b in bits:
        store.run(f"r{b}", method="rtn", scores=[(1, 0, 0, 0)], config={"quant": quant[b]}, sites=[])
        sites = [{"block": 0, "site": "attn_in", "estimator": "qig", "fallback": None, "completeness": 1 / b**4,
                  "nodes": 2**b, "exponents": [0.0, 0.5], "losses": [2.0, 1.0], "exponent": 0.5}]
        rule = {"quant": quant[b], "sensitivity.quadrature": "midpoint", "sensitivity.clip": "none",
                "sensitivity.clip_factor": 1.5}
        store.run(f"q{b}", config=rule, sites=sites)
    load = {name: load_run(store.root, name) for name in ("full", "r2", "r3", "q2", "q3")}
    return [Compared(load["full"]), *(Compared(load[f"r{b}"], load["full"]) for b in bits),
            *(Compared(load[f"q{b}"], load["full"], load[f"r{b}"]) for b in bits)]


def test_all_figures_are_drawn_again_byte_for_byte_elsewhere(rows, tmp_path):
    written, missing = write_all(rows, tmp_path / "one")
    assert {kind_of(path) for path in written} == set(KINDS) - {"token_image", "activation_magnitude", "massive_tokens"}
    assert [line.partition(":")[0] for line in missing] == ["token_image"]
    before = {path.name: path.read_bytes() for path in written}
    for path in written:
        if path.suffix != ".csv":
            path.unlink()
            Image.new("RGB", (1, 1)).save(tmp_path / "one" / f"{path.stem}.png")
    # Another process, another hash seed, and a user who likes large red letters.
    (tmp_path / "matplotlibrc").write_text("font.size: 30\ntext.color: red\nsavefig.dpi: 10\naxes.facecolor: blue\n")
    environment = os.environ | {"PYTHONPATH": str(Path(qig.__file__).parents[1]), "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-m", "qig.report.figures", "redraw", "one"], cwd=tmp_path, env=environment,
                   check=True, capture_output=True)
    assert {path.name: path.read_bytes() for path in written} == before


def test_redrawing_elsewhere_leaves_the_original(rows, tmp_path):
    written, _ = write_all(rows, tmp_path / "one", ["calibration_cost"])
    (tmp_path / "two").mkdir()
    pdf, png = redraw(written[0], tmp_path / "two")
    assert pdf.parent == png.parent == tmp_path / "two"
    assert png.read_bytes() == written[2].read_bytes()
    assert list(figure_tables(tmp_path)) == [written[0]]  # a CSV without its picture is no figure


def test_files_that_are_no_figures_are_refused(tmp_path):
    (tmp_path / "comparison.csv").write_text("method\nqig\n")
    with pytest.raises(StoreError, match="begins with none of token_sensitivity"):
        redraw(tmp_path / "comparison.csv")
    (tmp_path / "accuracy_bits.csv").write_text("run,method,model\na,qig,tiny\n")
    with pytest.raises(StoreError, match="accuracy_bits: it lacks sigma, label, weight_bits"):
        redraw(tmp_path / "accuracy_bits.csv")
    assert kind_of(Path("accuracy_bits_of_all.csv")) == "accuracy_bits"
    assert kind_of(Path("accuracy_bitsy.csv")) is None


def test_a_figure_that_was_asked_for_and_cannot_be_drawn_is_an_error(rows, tmp_path):
    with pytest.raises(StoreError, match="no completeness against nodes"):
        write_all(rows[:3], tmp_path, ["completeness_nodes"])
    with pytest.raises(StoreError, match="no run weighs tokens"):
        write_all(rows[:3], tmp_path, ["search_curves"])


def test_runs_that_weigh_single_tokens_are_shown_first(store):
    store.run("m", method="mbq", config={"sensitivity.granularity": "modality"})
    store.run("u", sites=[{"block": 0, "site": "attn_in", "estimator": "uniform"}])
    store.run("a")
    runs = [load_run(store.root, name) for name in "mua"]
    assert [run.id for run in worth_a_picture(runs, 5)] == ["a", "m"]
    assert [run.id for run in worth_a_picture(runs, 1)] == ["a"]


def test_the_command_says_what_it_cannot_do(tmp_path, capsys):
    assert main(["draw", str(tmp_path), "--to", str(tmp_path / "x")]) == 1
    assert "expected run.json" in capsys.readouterr().err
    assert main(["redraw", str(tmp_path)]) == 1
    assert "no figure's CSV below" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_reports_load_without_torch_and_the_heavy_libraries():
    code = ("import sys, qig.report.sweep, qig.report.closing, qig.report.__main__, qig.report.figures.__main__, "
            "qig.tracking; print([m for m in ('torch', 'pandas', 'matplotlib', 'wandb', 'scipy') if m in sys.modules])")
    environment = os.environ | {"PYTHONPATH": str(Path(qig.__file__).parents[1])}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
