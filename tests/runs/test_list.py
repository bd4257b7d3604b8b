import pytest

from qig.runs.__main__ import main


@pytest.fixture
def three(store):
    store.run("aaa", created="2026-01-03T00:00:00+00:00")
    store.run("bbb", method="rtn", created="2026-01-01T00:00:00+00:00", config={"seed": 1})
    store.run("ccc", method="none", quantized=False, scores=[(1, 1), (0, 1)], created="2026-01-02T00:00:00+00:00",
              environment={"git": {"commit": "12345678" + "0" * 32, "dirty": True}})  # fmt: skip
    return store


def test_all_runs_newest_last(three, ask):
    status, told = ask("list")
    assert status == 0 and "3 of 3 runs" in told
    assert [line.split()[0] for line in told.splitlines()[2:5]] == ["bbb", "ccc", "aaa"]
    assert "12345678+" in told and "00000000 " not in told.splitlines()[3]


def test_accuracy_is_the_mean_over_tasks(three, ask):
    line = next(line for line in ask("list")[1].splitlines() if line.startswith("ccc"))
    assert " 75.0 " in line


def test_running_text_beside_benchmarks_is_no_part_of_the_mean(store, ask):
    metrics = {"task0": {"accuracy": 0.5}, "task1": {"accuracy": 1.0}, "docs": {"accuracy": 0.25, "nll": 3.0}}
    text = {"evaluation.text": {"corpus": "docs", "window": 8}}
    store.run("aaa", config=text, metrics={name: {"by_type": {}, **values} for name, values in metrics.items()})
    store.run("bbb", config=text, metrics={"docs": {"by_type": {}, "accuracy": 0.25, "nll": 3.0}})
    lines = {line.split()[0]: line for line in ask("list")[1].splitlines()[2:4]}
    assert " 75.0 " in lines["aaa"] and " 25.0 " in lines["bbb"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["method=rtn"], "bbb"),
        (["seed=1"], "bbb"),
        (["method=q*", "seed=0"], "aaa"),
        (["model=tin?", "method=none"], "ccc"),
        (["calibration.samples=8", "setting=w3a16", "method=rtn"], "bbb"),
    ],
)
def test_conditions_must_all_hold(three, ask, words, found):
    told = ask("list", *words)[1]
    assert "1 of 3 runs" in told and found in told


def test_nothing_found_is_no_error(three, ask):
    assert ask("list", "method=awq")[0] == 0


@pytest.mark.parametrize(("word", "said"), [("method", "expected KEY=VALUE"), ("methd=rtn", "did you mean 'method'")])
def test_conditions_that_mean_nothing_are_refused(three, ask, word, said):
    status, told = ask("list", word)
    assert status == 1 and said in told


def test_a_folder_that_is_no_store_is_refused(tmp_path, capsys):
    assert main(["list", "--store", str(tmp_path)]) == 1
    assert "no store at" in capsys.readouterr().err


def test_unreadable_records_are_named(three, ask):
    (three.root / "runs" / "ddd").mkdir()
    (three.root / "runs" / "ddd" / "record.json").write_text("{")
    status, told = ask("list")
    assert status == 0 and "3 of 3 runs" in told and "unreadable: " in told and "ddd" in told


def apart(told):
    """Run to its last column."""
    head, _, *lines = told.splitlines()
    start = head.index("apart")
    return {line.split()[0]: line[start:].strip() for line in lines if line[:1] in "abcdef" and "=" in line[start:]}


def test_a_row_says_what_sets_its_run_apart_in_the_words_of_an_override(store, ask):
    for seed, run in enumerate("abcd"):
        store.run(run * 3, config={"seed": seed, "sensitivity.nodes": 16 if run == "d" else 4})
    told = ask("list")[1]
    assert apart(told) == {"aaa": "seed=0", "bbb": "seed=1", "ccc": "seed=2", "ddd": "seed=3 sensitivity.nodes=16"}
    assert apart(ask("list", "seed=3")[1]) == {}


def test_the_table_stays_as_wide_as_it_is(store, ask):
    for number, run in enumerate("ab"):
        store.run(run * 3, config={"calibration.path": f"/data/{number}" * 40})
    longest = apart(ask("list")[1])["aaa"]
    assert len(longest) == 60 and longest.startswith("calibration.path=/data/0") and longest.endswith("…")


def test_a_value_that_no_run_has_is_answered_with_those_that_are_there(three, ask):
    status, told = ask("list", "method=RTN")
    assert status == 0 and "unknown method 'RTN' (did you mean 'rtn'?); choose from: " in told
    assert "unknown" not in ask("list", "method=rtn")[1]
