import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from qig.errors import StoreError
from qig.report.records import load_run


def test_a_run_reads_back_what_was_written(store):
    store.run("ab12", method="awq", config={"model.outliers.sigma": 0.5})
    run = load_run(store.root, "ab12")
    assert (run.id, run.method, run.model, run.setting, run.outlier_sigma) == ("ab12", "awq", "tiny", "w3a16", 0.5)
    assert [line["score"] for line in run.samples] == [1.0, 1.0, 0.0, 1.0]
    assert run.samples is run.samples


def test_sensitivities_are_cut_by_sample(store):
    store.run("ab12", tokens=(2, 1, 3, 4))
    whole = load_run(store.root, "ab12").sensitivities
    assert whole.blocks == [0, 1]
    assert len(whole.kinds) == 8
    one = whole.select(1)
    np.testing.assert_allclose(one.weights[1, "mlp_in"], [0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    assert one.kinds.tolist() == [2, 1, 3, 4]
    with pytest.raises(StoreError, match="unknown calibration sample 7; choose from: 0, 1"):
        whole.select(7)


def test_a_model_without_outliers_block_has_sigma_zero(store):
    store.run("ab12", config={"model.outliers": None})
    assert load_run(store.root, "ab12").outlier_sigma == 0.0


def test_an_unknown_run_lists_the_known_ones(store):
    store.run("ab12")
    with pytest.raises(StoreError, match="did you mean 'ab12'"):
        load_run(store.root, "ab13")


def test_a_folder_that_is_no_store_says_so(tmp_path):
    with pytest.raises(StoreError, match="no store of runs"):
        load_run(tmp_path, "ab12")


def test_an_incomplete_record_names_what_lacks(store):
    store.run("ab12")
    path = store.root / "runs" / "ab12" / "record.json"
    record = json.loads(path.read_text())
    del record["metrics"]
    path.write_text(json.dumps(record))
    with pytest.raises(StoreError, match="lacks metrics"):
        load_run(store.root, "ab12")
    path.write_text("{")
    with pytest.raises(StoreError, match="is not JSON"):
        load_run(store.root, "ab12")


def test_samples_that_are_not_those_of_the_record_are_an_error(store):
    """A changed digit in a line that can be read well would be a wrong number in a table."""
    path = store.root / "evaluation" / "eab12" / "samples.jsonl"
    store.run("ab12")
    recorded = {"evaluation": {"documents": {}, "samples.jsonl": hashlib.sha256(path.read_bytes()).hexdigest()}}
    store.run("ab12", data=recorded)
    assert len(load_run(store.root, "ab12").samples) == 4
    path.write_text(path.read_text().replace("0.5", "0.4", 1))
    with pytest.raises(StoreError, match=r"run ab12: .*samples\.jsonl does not match the checksum in its record"):
        _ = load_run(store.root, "ab12").samples


def test_missing_and_damaged_samples_are_errors(store):
    store.run("ab12")
    path = store.root / "evaluation" / "eab12" / "samples.jsonl"
    path.write_text(path.read_text() + "{broken\n")
    with pytest.raises(StoreError, match="line 5"):
        _ = load_run(store.root, "ab12").samples
    path.unlink()
    with pytest.raises(StoreError, match="no evaluation samples"):
        _ = load_run(store.root, "ab12").samples


def test_runs_without_sensitivities_say_so(store):
    store.run("full", quantized=False)
    store.run("rtn")
    path = store.root / "quantized" / "qrtn" / "sensitivity.safetensors"
    save_file({}, path)
    for id in ("full", "rtn"):
        run = load_run(store.root, id)
        assert not run.has_sensitivities
        with pytest.raises(StoreError, match="it weighs no tokens"):
            _ = run.sensitivities
    path.write_bytes(b"damaged")
    with pytest.raises(StoreError, match="not a readable safetensors file"):
        _ = load_run(store.root, "rtn").sensitivities
