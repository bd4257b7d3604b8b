import csv
from dataclasses import replace

import pytest

from qig.report.cells import accuracy, byte_size, difference, plain, seconds, signed
from qig.report.comparison import Compared, by_type, comparison
from qig.report.records import load_run
from qig.report.render import markdown, terminal, write


@pytest.fixture
def frames(store):
    sigma = {"model.outliers.sigma": 0.5}
    types = ["count", "count", "exists", "exists"]
    store.run("f", method="none", quantized=False, scores=[(1, 1, 1, 1)], types=types, config=sigma)
    store.run("a", scores=[(1, 1, 0, 1)], types=types, nll=0.75, config=sigma)
    full, run = (load_run(store.root, id) for id in "fa")
    return comparison([Compared(full), Compared(run, full)]), by_type([full, run])


@pytest.mark.parametrize("got, expected", [
    (accuracy(0.9641, 0.955, 0.9719), "96.4 [95.5, 97.2]"),
    (accuracy(0.5), "50.0"),
    (accuracy(float("nan")), "–"),
    (difference(-0.0066, -0.012, 0.0, scale=100, digits=1), "-0.7 [-1.2, 0.0]"),
    (difference(0.0123, float("nan"), float("nan"), scale=1, digits=3), "+0.012"),
    (difference(float("nan"), 0.0, 0.0, scale=1, digits=3), "–"),
    (signed(-0.00001, 3), "0.000"),
    (plain(0.0004, 3), "<0.001"),
    (plain(0.0, 3), "0.000"),
    (plain(None), "–"),
    (plain(True), "True"),
    (plain(0.25), "0.25"),
    (plain(20240601.0), "20240601"),  # a seed, in a column that another run has nothing in
    (seconds(7.54), "7.5 s"),
    (seconds(75.4), "75 s"),
    (seconds(150), "2.5 min"),
    (seconds(9000), "2.5 h"),
    (byte_size(3.5 * 2**20), "3.5 MiB"),
    (byte_size(1.5 * 2**30), "1.50 GiB"),
])
def test_cells(got, expected):
    assert got == expected


def test_terminal_shows_what_was_measured(frames):
    text = terminal(*frames)
    (line,) = [line for line in text.splitlines() if "75.0 [50.0, 100.0]" in line]
    assert line.startswith("QIG") and "-25.0 [-50.0, 0.0]" in line and line.endswith("1.000")
    assert "tiny†" in text and "w3a16" in text
    assert "vs RTN" not in text  # no run has that baseline
    assert "peak device" not in text
    assert "+0.250 [+0.250, +0.250]" in text
    assert "512.0 MiB" in text and "perplexity" not in text
    assert "sigma = 0.5" in text and "McNemar" in text and "bootstrap" in text


def test_running_text_has_passages_and_documents(store):
    store.run("a", config={"evaluation.tasks": [], "evaluation.text": {"window": 128}})
    text = terminal(comparison([Compared(load_run(store.root, "a"))]), by_type([load_run(store.root, "a")]))
    assert "bootstrap over documents (all passages of a document" in text and "image" not in text
    assert "exp of it the perplexity" in " ".join(text.split())


def test_what_all_runs_share_is_said_once(store):
    store.run("f", method="none", quantized=False, config={"quant.name": "fp16"})
    store.run("a")
    runs = [load_run(store.root, id) for id in "fa"]
    text = terminal(comparison([Compared(run) for run in runs]))
    assert text.startswith("tiny · w3a16 · 2 runs")
    assert "fp16" not in text and "16 bit" in text
    store.run("b", config={"quant.name": "w4a8"})
    text = terminal(comparison([Compared(run) for run in [*runs, load_run(store.root, "b")]]))
    assert text.startswith("tiny · 3 runs")
    assert all(setting in text for setting in ("fp16", "w3a16", "w4a8"))


def test_models_without_outliers_have_no_dagger(store):
    store.run("a")
    frame = comparison([Compared(load_run(store.root, "a"))])
    assert "†" not in terminal(frame)


def test_no_line_is_wider_than_asked_and_no_number_is_lost(store, task_samples):
    tasks = [f"a_long_benchmark_name_{i}" for i in range(9)]
    rows = []
    for index in range(3):
        id = f"run{index}"
        samples = [line for task in tasks for line in task_samples(task, (1, 0, index % 2, 1))]
        store.run(id, samples=samples, config={"calibration.samples": index, "seed": index, "equalization.statistic":
                                               "a very long description of a statistic " * (index + 1)})
        rows.append(Compared(load_run(store.root, id)))
    frame = comparison(rows)
    for width in (160, 100):
        text = terminal(frame, width=width)
        assert max(map(len, text.splitlines())) <= width
        assert all(task in text for task in tasks)


def test_written_files_hold_full_precision_and_tables(frames, tmp_path):
    frame, types = frames
    written = write(frame, types, tmp_path / "new")
    assert [path.name for path in written] == ["comparison.csv", "by_type.csv", "comparison.md"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in written)
    with open(written[0], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["none", "qig"]
    assert float(rows[1]["vs_16bit"]) == frame["vs_16bit"].iloc[1] == -0.25
    assert rows[0]["vs_16bit"] == ""
    with open(written[1], newline="") as file:
        assert [(row["type"], float(row["accuracy"])) for row in csv.DictReader(file) if row["run"] == "a"] == [
            ("count", 1.0), ("exists", 0.5)]
    text = written[2].read_text(encoding="utf-8")
    header = next(line for line in text.splitlines() if line.startswith("| method"))
    assert header.count("|") == text.splitlines()[text.splitlines().index(header) + 1].count("|")
    assert "75.0 [50.0, 100.0]" in text and "synthetic" in text


def test_markdown_escapes_bars(store):
    store.run("a")
    run = load_run(store.root, "a")
    named = replace(run, record={**run.record, "method": "x|y"})  # no record from a store may be named so
    assert "x\\|y" in markdown(comparison([Compared(named)]))
