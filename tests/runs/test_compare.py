"""Differences between two runs, their statistics against scipy and by hand."""

from scipy.stats import binomtest

ONE = (1, 1, 0, 1, 0, 0, 1, 0, 0, 0)
TWO = (1, 1, 1, 1, 1, 1, 1, 0, 1, 0)


def test_configuration_stages_and_paired_results(store, ask):
    store.run("aaa", scores=[ONE], nll=0.5)
    store.run("bbb", scores=[TWO], nll=0.75, config={"sensitivity.nodes": 8})
    status, told = ask("compare", "aaa", "bbb")
    assert status == 0
    lines = {line.split()[0]: line.split() for line in told.splitlines() if line}
    assert lines["config.sensitivity.nodes"][1:] == ["4", "8"]
    assert lines["stages.evaluation"][1:] == ["eaaa", "ebbb"]
    assert "config.seed" not in told
    accuracy, nll = (next(line for line in told.splitlines() if line.startswith(name)) for name in ("accuracy", "NLL"))
    p = binomtest(0, 4).pvalue  # four questions differ, all in one direction
    assert accuracy.split()[2:5] == ["40", "80", "+40"] and accuracy.endswith(f"{p:.3g}")
    assert nll.split()[2:5] == ["0.5", "0.75", "+0.25"] and "[+0.25, +0.25]" in nll


def test_runs_on_other_samples_are_not_compared(store, ask):
    store.run("aaa", scores=[ONE])
    store.run("bbb", scores=[ONE[:4]])
    status, told = ask("compare", "aaa", "bbb")
    assert status == 1 and "were evaluated on different samples" in told


def test_a_run_is_not_compared_with_itself(store, ask):
    store.run("aaa", scores=[ONE])
    status, told = ask("compare", "aaa", "a")
    assert status == 1 and "aaa and a are one run, aaa: expected two" in told
