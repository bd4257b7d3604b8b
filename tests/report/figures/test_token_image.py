from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from qig.config.recorded import recorded_calibration
from qig.data.calibration import samples_of
from qig.data.digitgrid import calibration_samples
from qig.data.samples import ImagePolicy, single_turn
from qig.errors import StoreError
from qig.report.figures import token_image
from qig.report.figures.files import redraw, write
from qig.report.records import load_run

CALIBRATION = {"kind": "digitgrid", "samples": 2, "seed": 5, "tokens_per_batch": 100,
               "max_skipped_share": 0.0}
TOKENS = (4, 4, *(2,) * 36, 1, 3)


def run_of(store, name="a", model="tiny_qwen2_vl", tokens=TOKENS, first="digitgrid-train-5-00000", **config):
    model = {"name": model, "path": f"embedded:{model}", "outliers": {"sigma": 0.0}}
    stages = {"calibration": {"samples": [first, "digitgrid-train-5-00001"]}, "quantized": f"q{name}",
              "evaluation": f"e{name}"}
    store.run(name, tokens=tokens, stages=stages, config={"model": model, "calibration": CALIBRATION, **config})
    return load_run(store.root, name)


def test_weights_lie_where_their_tokens_come_from(store):
    frame = token_image.data(run_of(store), sample=1)
    part = frame[(frame.site == "mlp_in") & (frame.block == 1)]
    np.testing.assert_array_equal(part.token, np.arange(36))
    np.testing.assert_array_equal(np.round(6 * part.top), np.repeat(np.arange(6), 6))
    np.testing.assert_array_equal(np.round(6 * part.left), np.tile(np.arange(6), 6))
    # weights rise along the 40 tokens of the sample; the first two are no vision tokens
    np.testing.assert_allclose(part.weight, 40 * np.arange(3, 39) / (40 * 41 / 2), rtol=1e-5)
    assert set(frame.sample_id) == {"digitgrid-train-5-00001"}


def test_the_image_is_the_samples_own_and_is_kept(store, tmp_path):
    frame = token_image.data(run_of(store))
    expected = calibration_samples(1, seed=5)[0].images[0]
    np.testing.assert_array_equal(np.asarray(frame.attrs["picture"]), np.asarray(expected))
    table, _, png = write("token_image", frame, tmp_path, "x")
    before = png.read_bytes()
    redraw(table)
    assert png.read_bytes() == before
    assert (tmp_path / "token_image_x.input.png").is_file()


@pytest.mark.parametrize("encoded", [False, True], ids=["file", "bytes"])
def test_a_picture_that_is_a_file_or_its_bytes_is_decoded_and_padded_as_the_model_was_shown_it(
    store, tmp_path, monkeypatch, encoded
):
    """What ShareGPT's sets and those of the hub hold; the embedded one's are decoded already."""
    Image.new("RGB", (48, 24), "red").save(tmp_path / "wide.png")
    picture = (tmp_path / "wide.png").read_bytes() if encoded else tmp_path / "wide.png"
    sample = single_turn("digitgrid-train-5-00000", [picture], "describe .", "red .")
    first = replace(sample, policy=ImagePolicy(pad=True))
    monkeypatch.setattr("qig.data.calibration.samples_of", lambda config: [first])
    shown = np.asarray(token_image.data(run_of(store)).attrs["picture"])
    assert shown.shape == (48, 48, 3)
    assert (shown[12:36] == (255, 0, 0)).all() and not (shown[:12] == (255, 0, 0)).all(-1).any()


def test_a_set_inside_another_is_read_back(store):
    calibration = {"kind": "mixture", "samples": 2, "seed": 5, "tokens_per_batch": 100, "max_skipped_share": 0.0,
                   "parts": {"captions": {**CALIBRATION, "samples": 9}}, "shares": {"captions": 1.0}}
    expected = samples_of(recorded_calibration({"config": {"calibration": calibration}}))
    run = run_of(store, first=expected[0].id, calibration=calibration)
    np.testing.assert_array_equal(token_image.data(run).attrs["picture"], expected[0].images[0])


def test_panels_show_image_and_blocks(store):
    frame = token_image.data(run_of(store))
    axes = token_image.draw(frame, frame.attrs["picture"]).axes
    shown = np.asarray(axes[1].images[1].get_array())  # attention input, block 0, over the grey image
    part = frame[(frame.site == "attn_in") & (frame.block == 0)]
    np.testing.assert_allclose(shown.ravel(), part.weight, rtol=1e-6)


def test_what_cannot_be_laid_over_an_image_says_so(store):
    modality = {"sensitivity.granularity": "modality"}
    with pytest.raises(StoreError, match="one weight"):
        token_image.data(run_of(store, "m", **modality))
    with pytest.raises(StoreError, match="'digitgrid-train-9-00000' of run o is not in its set"):
        token_image.data(run_of(store, "o", first="digitgrid-train-9-00000"))
