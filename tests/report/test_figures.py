import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import qig
from qig.errors import StoreError
from qig.report.figures import KIND_COLOURS, colour_limit, relative_weights, token_sensitivity
from qig.report.records import Sensitivities, load_run


def test_weights_relative_to_uniform_by_hand():
    weights = {(0, "attn_in"): np.array([0.25, 0.25, 0.5, 0.0], np.float32),
               (2, "attn_in"): np.full(4, 0.25, np.float32), (1, "mlp_in"): np.full(4, 0.25, np.float32)}
    chosen = Sensitivities(weights, np.array([2, 2, 1, 3], np.uint8), np.zeros(4, np.int32))
    relative = relative_weights(chosen, "attn_in")
    np.testing.assert_array_equal(relative[0], [1, 1, 2, 0])
    np.testing.assert_array_equal(relative[2], [1, 1, 1, 1])
    assert np.isnan(relative[1]).all()  # block 1 has no weights at this site


def test_weights_of_a_corpus_are_brought_to_the_sample():
    weights = {(0, "attn_in"): np.array([0.25, 0.25, 1.0, 0.5], np.float32)}
    chosen = Sensitivities(weights, np.array([2, 2, 1, 3], np.uint8), np.zeros(4, np.int32))
    np.testing.assert_array_equal(relative_weights(chosen, "attn_in")[0], [0.5, 0.5, 2, 1])


@pytest.mark.parametrize("most, limit", [(1.0, 2.0), (2.0, 2.0), (3.0, 4.0), (0.2, 8.0), (100.0, 16.0)])
def test_the_colour_scale_holds_the_weights(most, limit):
    assert colour_limit([np.array([[1.0, most, 0.0, np.nan]])]) == limit


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


def colour_share(image, code):
    colour = [int(code[i:i + 2], 16) for i in (1, 3, 5)]
    return (image == colour).all(axis=-1).mean()


def test_the_band_and_the_legend_show_the_kinds_that_occur(store, tmp_path):
    store.run("a", tokens=(2, 2, 2, 2, 1, 3))
    pdf, png = token_sensitivity(load_run(store.root, "a"), tmp_path / "sub" / "figure", sample=1)
    assert pdf.read_bytes().startswith(b"%PDF")
    image = pixels(png)
    shares = {kind: colour_share(image, code) for kind, code in KIND_COLOURS.items()}
    assert shares["special"] < 1e-3  # blended edges of letters aside, it is nowhere
    # the band gives vision four cells and prompt one; the legend adds the same patch to each
    assert shares["vision"] > 2 * shares["prompt"] > 0
    assert shares["answer"] > 0


def test_a_flat_heat_map_is_one_colour_and_a_steep_one_is_not(store, tmp_path):
    store.run("steep", tokens=(2,) * 12, blocks=1)
    store.run("flat", tokens=(2,), blocks=1)
    middle = {}
    for id in ("steep", "flat"):
        image = pixels(token_sensitivity(load_run(store.root, id), tmp_path / id)[1])
        row = image[int(image.shape[0] * 0.28), int(image.shape[1] * 0.1):int(image.shape[1] * 0.8)]
        middle[id] = len(np.unique(row, axis=0))
    assert middle["flat"] == 1
    assert middle["steep"] >= 10  # the cut leaves out the last of twelve tokens


def test_equal_runs_give_equal_files(store, tmp_path):
    store.run("a")
    run = load_run(store.root, "a")
    first, second = (token_sensitivity(run, tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_what_cannot_be_drawn_says_so(store, tmp_path):
    store.run("a")
    run = load_run(store.root, "a")
    with pytest.raises(StoreError, match="choose from: 0, 1"):
        token_sensitivity(run, tmp_path / "x", sample=5)
    only = {(0, "attn_out"): run.sensitivities.weights[0, "attn_in"]}
    run.__dict__["sensitivities"] = Sensitivities(only, run.sensitivities.kinds, run.sensitivities.sample)
    with pytest.raises(StoreError, match="got sites attn_out; expected attn_in or mlp_in"):
        token_sensitivity(run, tmp_path / "x")
    assert not list(tmp_path.glob("x*"))


def test_reports_load_without_torch_and_the_heavy_libraries():
    code = ("import sys, qig.report.sweep, qig.report.closing, qig.report.__main__, qig.tracking; "
            "print([m for m in ('torch', 'pandas', 'matplotlib', 'wandb', 'scipy') if m in sys.modules])")
    environment = os.environ | {"PYTHONPATH": str(Path(qig.__file__).parents[1])}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
