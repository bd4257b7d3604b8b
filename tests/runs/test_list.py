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
