import numpy as np
import pandas as pd
import pytest
import torch

from qig.errors import ConfigError
from qig.models.checkpoint import resolve
from qig.report.activations import MOST_BINS, binned_maximum, magnitudes, main


def test_bins_hold_the_largest_of_their_channels():
    x = np.random.default_rng(0).random((3, 10))
    found = binned_maximum(x, 4)
    for token in range(3):
        for i, (start, stop) in enumerate([(0, 2), (2, 5), (5, 7), (7, 10)]):
            assert found[token, i] == max(x[token, start:stop])
    np.testing.assert_array_equal(binned_maximum(x, 10), x)
    np.testing.assert_array_equal(binned_maximum(x, 99), x)


def test_magnitudes_are_what_the_linears_are_given(any_tiny, fresh_model, digit_samples, batches_of):
    loaded = fresh_model(any_tiny)
    (batch,) = batches_of(loaded, digit_samples[:1])
    seen = {}
    hooks = [loaded.blocks[1].get_submodule(name).register_forward_hook(
        lambda _module, args, _output, name=name: seen.__setitem__(name, args[0][0].abs()))
        for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")]
    frame = magnitudes(loaded, batch, [0, 1])
    for hook in hooks:
        hook.remove()
    assert set(frame.block) == {0, 1} and set(frame.linear) == set(seen)
    for name, x in seen.items():
        part = frame[(frame.block == 1) & (frame.linear == name)]
        values = part.filter(regex=r"^c\d+$").to_numpy()
        assert values.shape == (x.shape[0], MOST_BINS) and set(part.channels) == {x.shape[1]}
        np.testing.assert_allclose(values.max(1), x.max(1).values, rtol=1e-6)  # no outlier is lost
        assert list(part.kind).count("vision") == int((batch.kinds == 2).sum())
    torch.testing.assert_close(torch.tensor(list(frame.position.unique())), torch.arange(batch.kinds.shape[1]))


def test_a_block_that_is_not_there(fresh_model, digit_samples, batches_of):
    loaded = fresh_model("tiny_internvl")
    with pytest.raises(ConfigError, match="no block 2: the model has blocks 0 to 1"):
        magnitudes(loaded, batches_of(loaded, digit_samples[:1])[0], [0, 2])


def test_the_command_writes_data_and_figure(tmp_path, capsys):
    assert main(["calibration.samples=2", "--sample", "1", "--to", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    frame = pd.read_csv(tmp_path / "activation_magnitude_tiny_qwen2_vl.csv")
    assert set(frame.sample_id) == {"digitgrid-train-0-00001"} and set(frame.block) == {1, 5}
    assert (tmp_path / "activation_magnitude_tiny_qwen2_vl.png").is_file()


def test_a_model_that_goes_by_its_path_gets_a_file_all_the_same(tmp_path):
    path = resolve("embedded:tiny_internvl")
    assert main(["model=hf", f"model.path={path}", "calibration.samples=1", "--to", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("activation_magnitude_*tiny_internvl*"))) == 3


@pytest.mark.parametrize("arguments, message", [
    (["model=no_such"], "no_such"), (["calibration.samples=2", "--sample", "2"], "samples 0 to 1"),
    (["calibration.samples=1", "--blocks", "0", "9"], "no block 9")])
def test_mistakes_are_one_message(arguments, message, tmp_path, capsys):
    assert main([*arguments, "--to", str(tmp_path / "x")]) == 1
    error = capsys.readouterr().err
    assert message in error and error.startswith("qig.report.activations: ")
    assert not (tmp_path / "x").exists()
