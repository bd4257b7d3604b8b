"""Forest plot, accuracy over bits, cost, completeness: their data by hand, and what the reader sees of it."""

import math

import pandas as pd
import pytest

from qig.errors import StoreError
from qig.report.figures import accuracy_bits, calibration_cost, completeness_nodes, method_differences
from qig.report.figures.identity import label, labels
from qig.report.figures.style import PALETTE, series_styles
from qig.report.records import load_run


def test_labels_name_what_differs(store):
    store.run("a", config={"sensitivity.control": "none"})
    store.run("b", config={"sensitivity.control": "permuted"})
    assert labels([load_run(store.root, name) for name in "ab"]) == ["QIG, control=none", "QIG, control=permuted"]
    assert label("mbq", {"seed": 1, "calibration.samples": None}) == "MBQ, seed=1"


def test_a_method_keeps_its_colour_whoever_stands_beside_it():
    few = series_styles(["QIG"], ["qig"])
    many = series_styles(["other", "MBQ", "QIG, a", "QIG, b"], ["other", "mbq", "qig", "qig"])
    assert few["QIG"] == many["QIG, a"] == (PALETTE[0], "o")
    assert len({colour for colour, _ in many.values()}) == 4
    crowd = series_styles([str(i) for i in range(20)], ["x"] * 20)
    assert len(set(crowd.values())) == 20


def comparison_frame():
    frame = pd.DataFrame({
        "run": ["f", "a", "b"], "method": ["none", "qig", "mbq"], "model": "tiny", "setting": "w3a16",
        "model.outliers.sigma": [0.5, 0.5, 0.5], "vs_rtn": [float("nan"), 0.02, -0.001],
        "vs_rtn_low": [float("nan"), 0.01, -0.02], "vs_rtn_high": [float("nan"), 0.03, 0.018]})
    frame.attrs = {"config": []}
    return frame


def test_forest_rows_are_in_points_and_filled_only_where_zero_is_outside():
    found = method_differences.data(comparison_frame())
    assert list(found.run) == ["a", "b"] and list(found.label) == ["QIG", "MBQ"]
    assert list(found.difference) == pytest.approx([2.0, -0.1]) and list(found.high) == pytest.approx([3.0, 1.8])
    axes = method_differences.draw(found).axes[0]
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in marks] == pytest.approx([2.0, -0.1])
    assert [line.get_markerfacecolor() for line in marks] == ["#0072B2", "white"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["QIG", "MBQ"]
    (right,) = axes.child_axes
    assert [text.get_text() for text in right.get_yticklabels()] == ["+2.0 [+1.0, +3.0]", "-0.1 [-2.0, +1.8]"]
    assert "†" in axes.get_xlabel() and any("tiny † · W3A16" in text.get_text() for text in axes.texts)


def test_a_difference_without_an_interval_is_a_point_and_a_number():
    """As on a single image, whose spread is not known."""
    frame = comparison_frame().assign(vs_rtn_low=math.nan, vs_rtn_high=math.nan)
    (right,) = method_differences.draw(method_differences.data(frame)).axes[0].child_axes
    assert [text.get_text() for text in right.get_yticklabels()] == ["+2.0", "-0.1"]


def test_a_comparison_without_the_baseline_has_no_forest():
    with pytest.raises(StoreError, match="no differences from 16bit to draw"):
        method_differences.data(comparison_frame(), "16bit")


@pytest.fixture
def known(store):
    """Runs a to c, the first two without outliers."""
    sigmas = {"a": 0.0, "b": 0.5, "c": 0.5}
    for name, sigma in sigmas.items():
        store.run(name, config={"model.outliers.sigma": sigma})
    return {name: load_run(store.root, name) for name in sigmas}


def test_forest_of_an_experiments_cells(known):
    cells = pd.DataFrame({
        "quant": "w3a16", "arm": ["CWE", "QIG", "QIG"], "metric": ["accuracy", "accuracy", "nll"],
        "runs": ["a", "b c", "b c"], "vs_CWE": [float("nan"), 0.01, 7.0], "vs_CWE_low": [float("nan"), 0.0, 7.0],
        "vs_CWE_high": [float("nan"), 0.02, 7.0]})
    found = method_differences.data_of_cells(cells, ["quant", "arm"], "CWE", known)
    (line,) = found.to_dict("records")
    assert line == {"run": "b", "group": "w3a16 †", "label": "QIG", "against": "CWE", "difference": 1.0, "low": 0.0,
                    "high": 2.0}


@pytest.fixture
def bit_runs(store):
    names = []
    for bits in (16, 4, 2):
        quant = {"name": f"w{bits}", "weights": {"bits": bits} if bits < 16 else None, "activations": None}
        names.append(store.run(f"b{bits}", method="qig" if bits < 16 else "none", config={"quant": quant}))
    return [load_run(store.root, name) for name in names]


def accuracies(runs, values):
    return pd.DataFrame({"run": [run.id for run in runs], "accuracy": values,
                         "accuracy_low": [v - 0.01 for v in values], "accuracy_high": [v + 0.01 for v in values]})


def test_bits_come_from_the_configuration(bit_runs):
    found = accuracy_bits.data(accuracies(bit_runs, [0.97, 0.96, 0.4]), bit_runs)
    assert list(found.weight_bits) == [16, 4, 2] and set(found.activation_bits) == {16}
    assert list(found.accuracy) == pytest.approx([97, 96, 40])
    full, near = accuracy_bits.draw(found).axes
    lowest = found[found.accuracy > 97 - accuracy_bits.NEAR].low.min()
    assert full.get_ylim()[0] < 40 < near.get_ylim()[0] == pytest.approx(lowest - 0.5)
    alone = found.assign(low=math.nan, high=math.nan)  # a single image
    assert accuracy_bits.draw(alone).axes[1].get_ylim() == pytest.approx((96 - 0.5, 97 + 0.5))
    close = accuracy_bits.data(accuracies(bit_runs, [0.97, 0.96, 0.95]), bit_runs)
    assert len(accuracy_bits.draw(close).axes) == 1


def test_one_bit_width_is_no_figure(bit_runs):
    with pytest.raises(StoreError, match="at least two bit widths"):
        accuracy_bits.data(accuracies(bit_runs[:2], [0.97, 0.96]), bit_runs[:2])


def test_costs_are_the_records_stages_and_memory(store):
    store.run("f", method="none", quantized=False)
    store.run("a", memory={"peak_host_bytes": 3 * 2**20, "peak_device_bytes": 2**20})
    store.run("r", method="rtn", stages={"calibration": None, "quantized": "qr", "evaluation": "er"})
    runs = [load_run(store.root, name) for name in "far"]
    found = calibration_cost.data(runs).set_index("part").value
    assert found["attribution"] == 2.0 and found["search"] == 3.0 and found["capture"] == 0.0
    assert found["peak_host_bytes"] == 3 * 2**20 and "quantization" not in found
    left, right = calibration_cost.draw(calibration_cost.data(runs)).axes
    assert max(bar.get_x() + bar.get_width() for bar in left.patches) == pytest.approx(1.5 + 2 + 3 + 0.5 + 0.5)
    assert sorted(bar.get_width() for bar in right.patches) == [1.0, 3.0]
    with pytest.raises(StoreError, match="no run was quantized with calibration samples"):
        calibration_cost.data(runs[:1])


def test_completeness_is_that_of_integrated_sites(store):
    for nodes in (2, 8):
        sites = [{"block": block, "site": site, "completeness": (block + 1) / nodes, "nodes": n, "exponents": None}
                 for block in (0, 1, 2) for site, n in (("attn_in", nodes), ("mlp_out", 0))]
        store.run(f"n{nodes}", sites=sites, config={"sensitivity.quadrature": "midpoint"})
    runs = [load_run(store.root, name) for name in ("n2", "n8")]
    found = completeness_nodes.data(runs)
    assert set(found.site) == {"attn_in"} and len(found) == 6
    (line,) = completeness_nodes.draw(found).axes[0].lines
    assert list(line.get_xdata()) == [2, 8] and list(line.get_ydata()) == [1.0, 0.25]  # medians over blocks
    fine = found[found.nodes == 8].assign(quadrature="gauss_legendre", nodes=1024, residual=1e-6)
    other = found.assign(quadrature="gauss_legendre")
    axes = completeness_nodes.draw(pd.concat([found, other, fine])).axes[0]
    assert [line.get_label() for line in axes.lines] == ["1,024 nodes", "midpoint", "Gauss–Legendre"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["2", "8"]
    assert completeness_nodes.draw(found).get_suptitle() == "Completeness: tiny"
    two = completeness_nodes.draw(pd.concat([found, found.assign(model="large", residual=2.0)]))
    assert two.get_suptitle() == "Completeness"
    assert [axes.get_title().partition("\n")[2] for axes in two.axes] == ["tiny", "large"]
    with pytest.raises(StoreError, match="at least two numbers of nodes"):
        completeness_nodes.data(runs[:1])


def test_forest_in_the_words_of_the_table_filled_after_holm(known):
    nan = float("nan")
    cells = pd.DataFrame({
        "calibration.samples": "16", "arm": ["CWE", "QIG", "RTN", "MBQ"], "metric": "accuracy",
        "runs": ["a", "a", "a", "a"], "vs_CWE": [nan, 0.01, -0.9, 0.005], "vs_CWE_low": [nan, 0.001, -0.95, -0.01],
        "vs_CWE_high": [nan, 0.02, -0.8, 0.01], "vs_CWE_holm": [nan, 0.2, 1e-9, 1.0]})
    words = {("arm", "CWE"): "uniform", ("arm", "QIG"): "ours"}
    found = method_differences.data_of_cells(cells, ["calibration.samples", "arm"], "CWE", known,
                                             lambda key, value: words.get((key, value), str(value)))
    assert list(found.group) == ["samples 16"] * 3 and list(found.label) == ["ours", "RTN", "MBQ"]
    assert list(found.clear) == [False, True, False]
    axes = method_differences.draw(found).axes[0]
    low, high = axes.get_xlim()
    assert high == -low < 10  # not 95: that one is an arrow, its numbers stand at the right
    assert [line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"] == ["white"] * 2
    assert "uniform" in axes.get_xlabel() and "after Holm" in axes.get_xlabel()
    only = method_differences.data_of_cells(cells, ["arm"], "CWE", known)
    assert set(only.group) == {"tiny · W3A16"}


def test_forest_of_likelihoods_is_in_nats(known):
    cells = pd.DataFrame({
        "quant": "w3a16", "arm": ["CWE", "QIG"], "metric": ["nll", "nll"], "runs": ["a", "b"],
        "vs_CWE": [float("nan"), -0.0123], "vs_CWE_low": [float("nan"), -0.02], "vs_CWE_high": [float("nan"), 0.001]})
    found = method_differences.data_of_cells(cells, ["quant", "arm"], "CWE", known | {"b": known["a"]})
    (line,) = found.to_dict("records")
    assert (line["difference"], line["unit"], line["metric"]) == (-0.0123, "nats", "NLL")
    axes = method_differences.draw(found).axes[0]
    assert axes.get_xlabel() == "NLL in nats, minus that of “CWE”\n95% intervals; filled: without 0"
    (right,) = axes.child_axes
    assert [text.get_text() for text in right.get_yticklabels()] == ["-0.012 [-0.020, +0.001]"]
