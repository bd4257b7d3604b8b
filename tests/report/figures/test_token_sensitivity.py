import numpy as np
import pytest
from PIL import Image

from qig.errors import StoreError
from qig.report.figures.collect import write_run_figure
from qig.report.figures.style import KIND_COLOURS
from qig.report.figures.token_sensitivity import colour_limit, data, draw, relative_weights
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


def test_the_frame_has_the_chosen_sample_relative_to_uniform(store):
    store.run("a", tokens=(2, 2, 1, 3, 4))
    frame = data(load_run(store.root, "a"), sample=1)
    one = frame[(frame.site == "mlp_in") & (frame.block == 1)]
    assert list(one.kind) == ["vision", "vision", "prompt", "answer", "special"]
    np.testing.assert_allclose(one.weight, 5 * np.arange(1, 6) / 15, rtol=1e-6)
    assert len(frame) == 2 * 2 * 5 and set(frame.run) == {"a"} and set(frame["sample"]) == {1}


def test_the_band_and_the_legend_show_the_kinds_that_occur(store, tmp_path):
    store.run("a", tokens=(2, 2, 2, 2, 1, 3))
    _, pdf, png = write_run_figure("token_sensitivity", load_run(store.root, "a"), tmp_path / "sub", sample=1)
    assert pdf.read_bytes().startswith(b"%PDF")
    image = pixels(png)
    shares = {kind: colour_share(image, code) for kind, code in KIND_COLOURS.items()}
    assert shares["special"] < 1e-3  # blended edges of letters aside, it is nowhere
    # the band gives vision four cells and prompt one; the legend adds the same patch to each
    assert shares["vision"] > 2 * shares["prompt"] > 0
    assert shares["answer"] > 0


def test_heat_maps_hold_the_weights_and_borders_stand_between_kinds(store):
    store.run("a", tokens=(4, 2, 2, 3))
    frame = data(load_run(store.root, "a"))
    attention, mlp, *_ = draw(frame).axes
    for axes in (attention, mlp):
        (image,) = axes.images
        np.testing.assert_allclose(np.asarray(image.get_array()), np.tile(4 * np.arange(1, 5) / 10, (2, 1)), rtol=1e-6)
        assert [line.get_xdata()[0] for line in axes.lines] == [0.5, 2.5]


def test_what_cannot_be_drawn_says_so(store):
    store.run("a")
    run = load_run(store.root, "a")
    with pytest.raises(StoreError, match="choose from: 0, 1"):
        data(run, sample=5)
    only = {(0, "elsewhere"): run.sensitivities.weights[0, "attn_in"]}
    run.__dict__["sensitivities"] = Sensitivities(only, run.sensitivities.kinds, run.sensitivities.sample)
    with pytest.raises(StoreError, match="got sites elsewhere; expected one of attn_in"):
        data(run)
