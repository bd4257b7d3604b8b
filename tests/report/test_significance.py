import pytest
from hypothesis import given
from hypothesis import strategies as st

from qig.report.statistics.significance import holm, mcnemar_exact


def test_mcnemar_known_values():
    # 6 to 0 discordant pairs: 2 * 0.5 ** 6; 9 to 3: twice the binomial tail, 2 * 299 / 4096.
    assert mcnemar_exact([1] * 6 + [0], [0] * 6 + [0]) == pytest.approx(2 / 64)
    assert mcnemar_exact([1] * 9 + [0] * 3, [0] * 9 + [1] * 3) == pytest.approx(598 / 4096)
    assert mcnemar_exact([0, 1, 1], [0, 1, 1]) == 1
    with pytest.raises(ValueError, match=r"got scores \[0\.5\]"):
        mcnemar_exact([0.5, 1], [1, 0])
    with pytest.raises(ValueError, match="1 scores of one model and 2 of the other"):
        mcnemar_exact([1], [1, 0])


def test_holm_known_values():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, 1.5])


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_rejects_what_the_step_down_procedure_rejects(pvalues):
    adjusted = holm(pvalues)
    for alpha in (0.01, 0.05, 0.2):
        rejected, order = set(), sorted(range(len(pvalues)), key=pvalues.__getitem__)
        for step, index in enumerate(order):
            if pvalues[index] * (len(pvalues) - step) > alpha:
                break
            rejected.add(index)
        assert rejected == {index for index, p in enumerate(adjusted) if p <= alpha}
