"""The table part of an experiment: read, and refused when it cannot be made."""

import pytest

from qig.errors import ConfigError
from qig.experiment.gather import experiments, table_of, tabulated
from qig.experiment.spec import read_table

ARMS = {"CWE": "method=awq", "QIG": "method=qig"}
GOOD = {"title": "T", "caption": "C", "rows": ["arm"], "metrics": ["nll"], "controls": ["CWE"]}


def test_a_table_is_read():
    table = read_table(GOOD | {"labels": {"arm": {"CWE": "uniform"}}}, ARMS)
    assert (table.label("arm", "CWE"), table.label("arm", "QIG"), table.label("quant", "w3a16")) == (
        "uniform", "QIG", "W3A16")
    assert table.columns == [] and table.published is None


@pytest.mark.parametrize("change, said", [
    ({"titel": "T"}, r"unknown key in .*table 'titel' \(did you mean 'title'"),
    ({"controls": ["AWQ"]}, "unknown arm in the table of .* 'AWQ'"),
    ({"references": ["16 bit"]}, "16 bit"),
    ({"shown": ["QGI"]}, "did you mean 'QIG'"),
    ({"metrics": ["accuracie"]}, "did you mean 'accuracy'"),
    ({"rows": "arm"}, r"table.rows='arm': expected list"),
    ({"rows": ["model"]}, "2 arms, but neither rows nor columns name 'arm'"),
    ({"controls": []}, "at least one entry"),
    ({"published": {"reported_by": "qig", "table": "T2", "metrics": ["average"], "arms": {"MBQ": "mbq"}}}, "MBQ"),
    ({"published": {"reported_by": "qig", "table": "T2", "metrics": ["average"]}}, "published.arms is missing"),
    ({"published": {"reported_by": "qig", "table": "T9", "metrics": ["average"], "arms": {}}}, "T9"),
])
def test_a_mistake_is_named(change, said):
    with pytest.raises(ConfigError, match=said):
        read_table(GOOD | change, ARMS)


def test_a_missing_key_and_a_missing_table_are_named():
    with pytest.raises(ConfigError, match="caption is missing"):
        read_table({key: value for key, value in GOOD.items() if key != "caption"}, ARMS)
    with pytest.raises(ConfigError, match=r"x has no hydra\.sweeper\.table"):
        read_table(None, ARMS, "x")


def test_every_experiment_but_the_first_run_has_a_table():
    assert set(experiments()) - set(tabulated()) == {"first_run"}
    for name in tabulated():
        table = table_of(name)
        assert table.title and table.caption.endswith("."), name


def test_an_experiment_is_not_called_as_a_kind_of_figure():
    """Its table would go with the figures of earlier runs."""
    with pytest.raises(ConfigError, match="search_curves is a kind of figure"):
        table_of("search_curves")
    with pytest.raises(ConfigError, match="token_image is a kind of figure"):
        table_of("token_image_again")


def test_every_comparison_has_uniform_and_permuted_weights_as_controls():
    no_weights_compared = {"nodes", "table6_cost", "text_methods", "text_samples", "text_sites", "image_samples"}
    for name in sorted(set(tabulated()) - no_weights_compared):
        controls = table_of(name).controls
        assert {"CWE", "GPTQ", "Uniform"} & set(controls) and "permuted" in controls[-1]


def test_experiments_on_request_have_to_be_named():
    """They need weights or benchmarks that are not in the repository; who runs everything else does not meet them."""
    assert set(tabulated()) - set(tabulated(on_request=False)) == {
        "mbq_table2", "text_methods", "text_samples", "text_sites", "image_methods", "image_samples",
        "real_weights", "real_weights_gptq", "real_weights_images", "real_weights_images_gptq",
        "fresh_seeds", "fresh_seeds_images", "fresh_seeds_search", "fresh_seeds_statistic",
    }


def test_on_request_is_yes_or_no():
    with pytest.raises(ConfigError, match="on_request='perhaps'"):
        read_table({**GOOD, "on_request": "perhaps"}, ARMS)
