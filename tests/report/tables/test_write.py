"""The files of an experiment: traceable, the same twice, marked as they should be, and LaTeX that compiles."""

import csv
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from threading import Thread

import pandas as pd
import pytest
from filelock import FileLock

from qig.experiment.gather import Found, Row, table_of
from qig.experiment.spec import Published, Table
from qig.report.comparison import Compared, comparison
from qig.report.records import load_run
from qig.report.render import terminal
from qig.report.statistics import compare
from qig.report.tables.latex import escape
from qig.report.tables.notes import power_line
from qig.report.tables.write import folder_name, write_experiment

SCORES = {"16 bit & more": [1] * 8, "CWE": [1, 0, 1, 0, 1, 0, 0, 0], "MBQ": [1, 0, 1, 1, 1, 0, 1, 0],
          "QIG": [1, 1, 1, 1, 1, 1, 1, 0]}
PUBLISHED = Published("qig", "T2", ["average", "chartqa"], {"MBQ": "mbq", "QIG": "qig"}, {"tiny": "qwen2_vl_7b"})


@pytest.fixture
def found(store):
    rows = []
    for quant in ("w3a16", "w4a8"):
        for arm, scores in SCORES.items():
            name = store.run(f"{arm[:3].strip()}{quant}", scores=[scores], config={"quant.name": quant})
            rows.append(Row(arm, {"model": "tiny_a", "quant": quant}, load_run(store.root, name)))
    table = Table(title="Title_with 100%", caption="A caption.", rows=["model", "arm"], columns=["quant"],
                  metrics=["accuracy", "nll", "model_bytes"], controls=["CWE"], references=["16 bit & more"],
                  published=PUBLISHED)
    return Found("fake", (), table, rows)


@pytest.fixture
def written(found, tmp_path):
    return {path.name: path for path in write_experiment(found, tmp_path / "results")}


def lines(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_number_is_traced_to_samples_of_a_record(found, written, store, tmp_path):
    """Each accuracy and difference once more, from the sidecar's run ids and the store alone."""
    sidecar = json.loads(written["fake.json"].read_text())
    rows = lines(written["fake.csv"])
    assert len(rows) == len(sidecar["cells"]) == 24
    for row, trace in zip(rows, sidecar["cells"], strict=True):
        assert row["runs"].split() == trace["runs"]
        for name in trace["runs"]:
            copy = (tmp_path / "results" / "records" / f"{name}.json").read_bytes()
            assert copy == (store.root / "runs" / name / "record.json").read_bytes()
            assert hashlib.sha256(copy).hexdigest() == sidecar["runs"][name]["record_sha256"]
        if row["metric"] == "accuracy":
            record = json.loads((tmp_path / "results" / "records" / f"{trace['runs'][0]}.json").read_text())
            assert float(row["value"]) == pytest.approx(record["metrics"]["task0"]["accuracy"])
            if "vs_CWE_runs" in trace:
                ours, theirs = (samples(store, sidecar["runs"][trace[key][0]]["evaluation"])
                                for key in ("runs", "vs_CWE_runs"))
                expected = compare([a - b for a, b in zip(ours, theirs, strict=True)], [0, 0, 1, 1, 2, 2, 3, 3])
                assert float(row["vs_CWE"]) == pytest.approx(expected.mean)
                assert float(row["vs_CWE_p"]) == pytest.approx(expected.p)


def samples(store, evaluation):
    path = store.root / "evaluation" / evaluation / "samples.jsonl"
    return [json.loads(line)["score"] for line in path.read_text().splitlines()]


def test_the_sidecar_knows_its_files(written):
    sums = json.loads(written["fake.json"].read_text())["files"]
    assert sums == {name: hashlib.sha256(path.read_bytes()).hexdigest()
                    for name, path in written.items() if name != "fake.json"}


def test_the_same_store_gives_the_same_bytes(found, written, tmp_path):
    again = write_experiment(found, tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written.values()]


def test_published_numbers_stand_in_their_own_columns_alone(written):
    rows = lines(written["fake.csv"])
    printed = {(row["arm"], row["quant"]): (row["published_average"], row["published_chartqa"]) for row in rows
               if row["metric"] == "accuracy"}
    # The fabricated model is called "tiny" and stands for Qwen2-VL.
    assert printed["MBQ", "w3a16"] == ("70.15", "79.18") and printed["CWE", "w3a16"] == ("", "")
    assert {row["published_average"] for row in rows if row["metric"] != "accuracy"} == {""}
    assert {row["published_source"] for row in rows if row["published_average"]} == {"qig T2, qwen2_vl_7b"}
    text = written["fake.md"].read_text()
    assert "published, W3A16: average" in text and "70.15‡" in text and "arXiv 2603.17809" in text
    assert "70.15" not in text.partition("### NLL")[2].partition("Published columns")[0]


def test_the_note_of_published_numbers_tells_whether_the_models_are_theirs(store, found, written, tmp_path):
    assert "(qwen2_vl_7b beside tiny); other models, benchmarks" in written["fake.md"].read_text()
    runs = [store.run(f"q{i}", config={"model.name": "qwen2_vl_7b", "quant.name": "w3a16"}) for i in range(len(SCORES))]
    point = {"model": "qwen2_vl_7b", "quant": "w3a16"}
    rows = [Row(arm, point, load_run(store.root, run)) for arm, run in zip(SCORES, runs, strict=True)]
    (text,) = (p.read_text() for p in write_experiment(replace(found, rows=rows), tmp_path / "t") if p.suffix == ".md")
    assert "(qwen2_vl_7b); the same models" in text and "other models" not in text


def test_best_bold_second_underlined_in_each_column(written):
    page = written["fake.md"].read_text().partition("### Accuracy")[2].partition("###")[0]
    assert page.count("**87.5**") == 2 and page.count("<ins>62.5</ins>") == 2
    assert "**100.0**" not in page  # the reference is not ranked
    document = written["fake.tex"].read_text()
    assert document.count(r"\textbf{87.5}") == 2 and document.count(r"\underline{62.5}") == 2


def test_the_power_line_and_the_winners_are_told(written):
    text = written["fake.md"].read_text()
    assert re.search(r"Power, accuracy: a true difference to CWE of \d+\.\d points \(median of 2 comparisons", text)
    # QIG is better by one answer on every image: no spread, and no power to be had from it.
    assert "in 2 of 4 comparisons with CWE the differences have no spread" in text
    assert "A single value is best in 2 column(s) of rivals" in text
    assert [row["best"] for row in lines(written["fake_winners.csv"])] == ["QIG", "QIG"]


def test_a_star_and_the_count_of_sure_winners_are_those_of_holms_p(store, tmp_path):
    """An answer more on four images of twelve has p = 0.039 in each of three settings, on eleven far less."""
    rows = []
    for quant in "abc":
        for arm, scores in {"CWE": [1, 0] * 12, "QIG": [1, 1] * 4 + [1, 0] * 8}.items():
            rows.append(Row(arm, {"quant": quant}, load_run(store.root, store.run(f"{arm}{quant}", scores=[scores]))))
    everywhere = [1, 1] * 11 + [1, 0]
    rows.append(Row("MBQ", {"quant": "a"}, load_run(store.root, store.run("MBQ", scores=[everywhere]))))
    table = Table("T", "C.", ["arm"], ["accuracy"], ["CWE"], columns=["quant"])
    written = write_experiment(Found("fake", (), table, rows), tmp_path / "results")
    frame = {(line["quant"], line["arm"]): line for line in lines(written[0]) if line["vs_CWE_p"]}
    below = {key: [float(line[f"vs_CWE_{name}"]) < 0.05 for name in ("p", "holm")] for key, line in frame.items()}
    assert below == {("a", "MBQ"): [True, True], **{(quant, "QIG"): [True, False] for quant in "abc"}}
    page, document = written[2].read_text(), written[3].read_text()
    bounds = {key: [100 * float(line[f"vs_CWE_{end}"]) for end in ("low", "high")] for key, line in frame.items()}
    for key, shown in {("a", "MBQ"): "+45.8\\*", ("b", "QIG"): "+16.7"}.items():
        low, high = bounds[key]
        assert 0 < low < high and f"{shown} [{low:+.1f}, {high:+.1f}]" in page
    assert page.count("\\* [") == 1
    assert document.count(r"$^{*}$") == 1
    below = [float(line["p"]) < 0.05 for line in lines(written[1])]
    assert len(below) == 3 and sum(below) > sum(float(line["holm"]) < 0.05 for line in lines(written[1])) == 1
    assert "better than the second best in 1 of them" in page


def test_the_power_line_has_the_median_and_the_ends_in_the_metrics_unit():
    frame = pd.DataFrame({"metric": "accuracy", "vs_CWE_holm": [0.1, 0.2, 0.3, 0.4, float("nan")],
                          "vs_CWE_detectable": [0.01, 0.02, 0.09, float("nan"), 0.5]})
    found = Found("fake", (), Table("T", "C.", ["arm"], ["accuracy"], ["CWE"]), [])
    assert power_line(found, frame, "accuracy") == (
        "Power, accuracy: a true difference to CWE of 2.0 points (median of 3 comparisons; 1.0 to 9.0) would have been "
        "found with a probability of 80% at the 5% level, before correction; in 1 of 4 comparisons with CWE the "
        "differences have no spread, so that nothing can be said.")


def test_it_says_what_was_measured(found, tmp_path):
    arms = {"CWE": "method=awq", "QIG": "method=qig sensitivity.control=none"}
    plain = Found("fake", (), found.table, found.rows, arms=arms)
    text = write_experiment(plain, tmp_path / "results")[2].read_text()
    assert "Measured: 2 calibration samples (digitgrid), task0: 8 questions on 4 images." in text
    assert "Arms: CWE: method=awq; QIG: method=qig sensitivity.control=none." in text
    assert "Differences: the row's arm minus the control" in text and "16 bit & more apart" in text


def test_passages_of_running_text_are_no_questions_and_sample_counts_may_differ(store, tmp_path):
    rows = []
    for arm, count in {"RTN": 2, "GPTQ": 4}.items():
        calibration = {"calibration": {"samples": [f"s{index}" for index in range(count)], "sha256": "0" * 64}}
        stages = {"quantized": f"q{arm}", "evaluation": f"e{arm}"} | calibration
        config = {"evaluation.tasks": [], "evaluation.text": {"corpus": "task0", "window": 8}}
        name = store.run(arm, scores=[SCORES["CWE"]], config=config, stages=stages)
        rows.append(Row(arm, {}, load_run(store.root, name)))
    table = Table(title="Text", caption="", rows=["arm"], columns=[], metrics=["nll", "accuracy"], controls=["RTN"])
    text = write_experiment(Found("text", (), table, rows), tmp_path / "results")[2].read_text()
    assert "2 to 4 calibration samples (digitgrid), task0: 8 passages of 4 documents, accuracy: next tokens" in text
    assert "from a bootstrap over documents;" in text and "image" not in text


def test_latex_is_balanced(written):
    document = written["fake.tex"].read_text()
    body = re.sub(r"\\[\\&%$#_{}]", "", document)
    depth = 0
    for letter in body:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0 and body.count("$") % 2 == 0
    begun = re.findall(r"\\begin\{(\w+)\}", document)
    assert sorted(begun) == sorted(re.findall(r"\\end\{(\w+)\}", document)) and begun[0] == "document"
    assert document.isascii()
    for form, table in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", document, re.DOTALL):
        assert table.count(r"\toprule") == table.count(r"\bottomrule") == 1
        for line in re.findall(r"^(.*) \\\\$", table, re.MULTILINE):
            spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
            assert len(re.split(r"(?<!\\)&", line)) + spans == len(form)


def test_what_latex_would_obey_is_escaped():
    assert escape("50% of a_b & {c} $x$ #1 ~^\\ <†>") == (
        r"50\% of a\_b \& \{c\} \$x\$ \#1 \textasciitilde{}\textasciicircum{}\textbackslash{} "
        r"\textless{}\dag{}\textgreater{}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles_as_it_is(written, tmp_path):
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"-output-directory={tmp_path}"]
    result = subprocess.run([*command, str(written["fake.tex"])], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:]
    assert (tmp_path / "fake.pdf").read_bytes().startswith(b"%PDF")


def test_records_that_no_sidecar_names_any_more_are_removed(found, written, tmp_path):
    stray = tmp_path / "results" / "records" / "0123456789abcdef.json"
    stray.write_text("{}")
    write_experiment(found, tmp_path / "results")
    assert not stray.exists()
    assert len(list(stray.parent.iterdir())) == 8


def test_tables_of_one_folder_are_written_one_after_the_other(found, tmp_path):
    """Each removes records that none names, and must not take those of another for such."""
    root = tmp_path / "results"
    root.mkdir()
    with FileLock(root / ".lock"):
        other = Thread(target=write_experiment, args=(found, root))
        other.start()
        other.join(0.5)
        assert other.is_alive() and not (root / "records").exists()
    other.join()
    assert len(list((root / "records").iterdir())) == 8


def test_figures_stand_beside_the_table(found, tmp_path):
    shown = Found("fake", (), found.table, found.rows, ("method_differences",))
    written = write_experiment(shown, tmp_path / "results")
    assert [path.name for path in written[-3:]] == [f"method_differences_cwe{end}" for end in (".csv", ".pdf", ".png")]
    drawn = {(line["group"], line["label"]): float(line["difference"]) for line in lines(written[-3])}
    cells = {(line["quant"], line["arm"]): line for line in lines(tmp_path / "results" / "fake" / "fake.csv")
             if line["metric"] == "accuracy" and line["vs_CWE"]}
    assert drawn == {(f"tiny_a · {quant.upper()}", arm): pytest.approx(100 * float(line["vs_CWE"]))
                     for (quant, arm), line in cells.items()}


def test_overrides_have_a_folder_of_their_own(found):
    overrides = ("model=a/b", "tracking=none", "evaluation.limit=4", "hydra.verbose=true")
    changed = Found("fake", overrides, found.table, found.rows)
    assert folder_name(found) == "fake" and folder_name(changed) == "fake_model=a-b_evaluation.limit=4"


def test_lines_of_a_block_stand_together(store, tmp_path):
    rows = [Row(arm, {"nodes": nodes}, load_run(store.root, store.run(f"{arm}{nodes}", scores=[[1, 0]])))
            for arm in ("CWE", "QIG") for nodes in ("2", "4")]
    table = Table("T", "C.", ["nodes", "arm"], ["accuracy"], ["CWE"])
    page = write_experiment(Found("fake", (), table, rows), tmp_path / "results")[2].read_text()
    lines = [line.split("|")[1:3] for line in page.splitlines() if "CWE  " in line or "QIG  " in line]
    assert [(a.strip(), b.strip()) for a, b in lines] == [("2", "CWE"), ("", "QIG"), ("4", "CWE"), ("", "QIG")]


def test_tables_of_the_same_runs_have_folders_of_their_own(found):
    names = {folder_name(replace(found, overrides=("seed=0,1", word))) for word in
             ("hydra.sweeper.table.columns=[seed]", "++hydra.sweeper.table.over=[seed]", "hydra.sweep.dir=there")}
    assert names == {"fake_seed=0,1_hydra.sweeper.table.columns=-seed-", "fake_seed=0,1",
                     "fake_seed=0,1_++hydra.sweeper.table.over=-seed-"}


FIVE = ("vizwiz_vqa_val", "mmmu_val", "chartqa", "ai2d", "scienceqa_img")


@pytest.fixture
def beside_the_papers(store, found, task_samples, tmp_path):
    """``beside_the_papers(tasks)``: the CSV's lines, and the page, of the paper's own model on these benchmarks."""
    def make(tasks, **changes):
        rows = []
        for index, arm in enumerate(("CWE", "MBQ", "QIG")):
            samples = [line for task in tasks for line in task_samples(task, [1, 0, index > 0, 1])]
            run = store.run(f"p{index}", samples=samples, config={"model.name": "qwen2_vl_7b", "quant.name": "w3a16"})
            rows.append(Row(arm, {"model": "qwen2_vl_7b", "quant": "w3a16"}, load_run(store.root, run)))
        table = replace(found.table, references=[], published=replace(PUBLISHED, **{"metrics": ["average"]} | changes))
        written = write_experiment(Found("own", (), table, rows), tmp_path / "own")
        return lines(written[0]), written[2].read_text()

    return make


def printed(rows):
    """(metric, arm) -> what is published there, by its column."""
    return {(row["metric"], row["arm"]): numbers for row in rows
            if (numbers := {name.removeprefix("published_"): value for name, value in row.items()
                            if name.startswith("published_") and name != "published_source" and value})}


def test_each_benchmarks_published_number_stands_beside_our_own_on_it(beside_the_papers):
    rows, page = beside_the_papers(FIVE)
    shown = printed(rows)
    # QIG's Table 2, Qwen2-VL-7B at W3A16.
    assert shown["accuracy", "MBQ"] == {"average": "70.15"} and shown["accuracy", "QIG"] == {"average": "70.30"}
    assert shown["accuracy.chartqa", "MBQ"] == {"chartqa": "79.18"}
    assert set(shown) == {(name, arm) for name in ("accuracy", *(f"accuracy.{task}" for task in FIVE))
                          for arm in ("MBQ", "QIG")}
    section = page.partition("### Accuracy on chartqa")[2].partition("###")[0]
    assert "published, W3A16: ChartQA" in section and "79.18" in section
    assert "79.18" not in page.partition("### Accuracy on")[0] and "Left out" not in page


def test_an_average_over_other_benchmarks_is_left_out_and_said_so(beside_the_papers):
    rows, page = beside_the_papers(("chartqa", "mmmu_val", "textvqa_val"))
    shown = printed(rows)
    assert {name for name, _ in shown} == {"accuracy.chartqa", "accuracy.mmmu_val"}
    assert "70.15" not in page and "70.30" not in page
    assert "Left out: the average, which is over VizWiz, MMMU, ChartQA, AI2D, ScienceQA, beside ChartQA, MMMU" in page


def test_one_benchmark_alone_stands_beside_its_own_number(beside_the_papers):
    rows, page = beside_the_papers(("chartqa",))
    assert {key: value for key, value in printed(rows).items() if key[1] == "MBQ"} == {
        ("accuracy", "MBQ"): {"chartqa": "79.18"}}
    assert "Left out: the average" in page


def test_an_average_over_other_benchmarks_than_its_papers_usual_five(beside_the_papers):
    """Table A3's are over three, as its notes say."""
    changes = {"table": "A3", "setting": "w4a8", "arms": {"QIG": {"method": "qig", "variant": "calib=infovqa;n=128"}}}
    rows, _ = beside_the_papers(FIVE, **changes)
    assert printed(rows) == {}
    rows, page = beside_the_papers(("docvqa_val", "chartqa", "ocrbench"), **changes)
    assert printed(rows) == {("accuracy", "QIG"): {"average": "80.97"}} and "Left out" not in page


@pytest.mark.parametrize(("limit", "cut"), [(4, True), (5, False), ("null", False)])
def test_a_limit_of_questions_is_said_where_it_ended_the_evaluation(store, tmp_path, limit, cut):
    limit = None if limit == "null" else limit
    rows = [Row(arm, {}, load_run(store.root, store.run(arm, scores=[[1, 0, 1, 0]],
                                                        config={"evaluation.limit": limit}))) for arm in ("CWE", "QIG")]
    found = Found("fake", (), Table("T", "C.", ["arm"], ["accuracy"], ["CWE"]), rows)
    page = write_experiment(found, tmp_path / "results")[2].read_text()
    closing = terminal(comparison([Compared(row.run) for row in rows]))
    assert ("task0: 4 questions on 2 images, only the first 4 of each task (evaluation.limit)." in page) == cut
    assert ("Evaluated: only the first 4 of each task (evaluation.limit)." in closing) == cut
    assert cut or "evaluation.limit" not in page + closing.partition("Brackets")[2]


def test_mbqs_numbers_stand_in_its_own_table(beside_the_papers):
    """TextVQA among them; as printed in MBQ's Table 2 for Qwen2-VL-7B at W3A16."""
    six = ("mmmu_val", "seedbench", "ocrbench", "vizwiz_vqa_val", "scienceqa_img", "textvqa_val")
    rows, page = beside_the_papers(six, **vars(table_of("mbq_table2").published))
    shown = printed(rows)
    assert shown["accuracy", "MBQ"] == {"average": "71.6"} and "Left out" not in page
    assert shown["accuracy.textvqa_val", "MBQ"] == {"textvqa_val": "79.9"}
    assert {arm for _, arm in shown} == {"MBQ"} and len(shown) == 7
