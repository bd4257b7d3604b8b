"""Massive activations and weights: found by hand, and by the command on a run of a language model."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from families.table import LANGUAGE
from qig.config.schema import Model, Outliers
from qig.data.calibration import collate
from qig.data.samples import CalibrationSample, PlainText
from qig.data.tokens import TokenKind
from qig.models.loading import load
from qig.report.massive import classes_of, data, main, massive_tokens
from qig.report.records import load_run
from qig.runner import Prepared


def test_classes_by_place_kind_and_text():
    texts = ["a", "b", " .", "\n\n", "7", ",x", "<image>", "user"]
    said, added = [TokenKind.ANSWER] * 4, TokenKind.SPECIAL
    kinds = np.array([*said, added, TokenKind.PROMPT, TokenKind.VISION, added])
    found = classes_of(texts, np.array([0, 0, 0, 0, 1, 1, 1, 1]), kinds)
    assert found.tolist() == ["first", "word", "punctuation", "line break", "first", "word", "vision", "template"]


def test_numbers_by_hand(store):
    """The fabricated weights are 1, 2, 3, 4, 5 of 15 in both of two samples, at both sites of both blocks."""
    run = load_run(store.root, store.run("a"))
    massive = np.zeros((2, 10), dtype=bool)
    massive[0, [4, 9]] = massive[1, 0] = True
    classes = np.array(["first", "word", "word", "word", "punctuation"] * 2)
    frame = data(run, massive, classes).set_index(["site", "class"])
    named = ("massive", "first", "word", "punctuation")
    assert set(frame.index) == {(site, name) for site in ("attn_in", "mlp_in") for name in named}
    relative = np.tile(np.arange(1, 6) / 3, (2, 2))
    for name, inside in {"massive": massive, **{c: np.tile(classes == c, (2, 1)) for c in set(classes)}}.items():
        row = frame.loc["mlp_in", name]
        assert (row.tokens, row.share) == (inside.sum(), pytest.approx(inside.mean()))
        assert row.weight == pytest.approx(relative[inside].mean())
        assert row.weight_share == pytest.approx(relative[inside].sum() / relative.sum())
        assert row.auc == pytest.approx(roc_auc_score(inside.ravel(), relative.ravel()))
        assert row.top == pytest.approx((relative[inside] == 5 / 3).mean())  # a tenth of five tokens is the first


def test_magnitudes_are_those_of_the_residual_stream(family_checkpoint):
    loaded = load(Model("x", str(family_checkpoint("llama")), "float32", Outliers(0.0, 0)), torch.device("cpu"))
    texts = ["the image shows a red 7 and a blue 4", "red 5", "a green 1 in row 2"]
    loaded.blocks[1].mlp.down_proj.weight.data[3] = 1e5  # one channel behind the second block
    samples = [CalibrationSample(str(i), (PlainText(text),)) for i, text in enumerate(texts)]
    batches = collate(samples, loaded.processor, loaded.model, set(), 1000)
    assert batches[0].order != (0, 1, 2)  # rows of a batch are sorted by length
    largest, massive = massive_tokens(loaded, batches)
    alone = []
    for text in texts:
        ids = torch.tensor(loaded.processor.tokenizer(text)["input_ids"])[None]
        with torch.no_grad():
            states = loaded.model(input_ids=ids, output_hidden_states=True).hidden_states[:3]
        alone.append(torch.stack([x[0].abs().amax(-1) for x in states]))
    np.testing.assert_allclose(largest, torch.cat(alone, 1), rtol=1e-4)
    assert not massive[:2].any() and massive[2].any()


class Stream(torch.nn.Module):
    """Blocks that add to the residual stream what they were made with, ``[channels]`` each."""

    def __init__(self, *added):
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Identity() for _ in added)
        self.added = torch.tensor(added)

    def forward(self, x, **_options):
        for block, added in zip(self.blocks, self.added, strict=True):
            x = block(x) + added


def test_massive_is_what_passes_both_bounds_in_its_own_block():
    """By loops, on streams whose medians are about 0.01, 1 and 50, and tokens that pass one bound or the other."""
    generator = torch.Generator().manual_seed(0)
    real = [torch.tensor([[True] * 5, [True] * 3 + [False] * 2]), torch.tensor([[True] * 4])]
    inputs = [0.01 * (1 + torch.rand(*mask.shape, 3, generator=generator)) for mask in real]
    inputs[0][0, 1, 0] = -50.0  # far above the first median, below 100 until 98.5 and 147.5 have been added
    inputs[0][1, 2, 1] = 500.0  # above 1000 medians in the first block alone
    inputs[1][0, 0, 2] = 3e3  # in the second, too
    inputs[1][0, 3, 2] = -3e5  # everywhere
    inputs[0][1, 3:] = 1e6  # padding decides nothing
    model = Stream([1.0] * 3, [49.0] * 3, [0.0] * 3)
    orders = [(2, 0), (1,)]
    batches = [SimpleNamespace(inputs={"x": x}, real=mask, order=order)
               for x, mask, order in zip(inputs, real, orders, strict=True)]
    largest, massive = massive_tokens(SimpleNamespace(model=model, blocks=model.blocks), batches)
    for block, added in enumerate((0.0, 1.0, 50.0)):
        rows = {position: (x[row][mask[row]] + added).abs().numpy() for x, mask, order in
                zip(inputs, real, orders, strict=True) for row, position in enumerate(order)}
        tokens = [token for position in sorted(rows) for token in rows[position]]
        median = np.sort(np.concatenate(tokens))[(3 * len(tokens) - 1) // 2]
        np.testing.assert_allclose(largest[block], [token.max() for token in tokens], rtol=1e-6)
        expected = [bool(token.max() > 100 and token.max() > 1000 * median) for token in tokens]
        assert massive[block].tolist() == expected
    assert massive.sum(1).tolist() == [3, 2, 1]
    assert ((largest > 100).sum(1) > massive.sum(1)).tolist() == [False, True, True]


def test_the_command_and_a_changed_corpus(family_checkpoint, compose, tmp_path, capsys, monkeypatch):
    assert "llama" in LANGUAGE
    words = ["quant=w3a16", "method=qig", "tracking=none", "calibration.samples=2", "calibration.max_tokens=24"]
    words += ["equalization.points=2", "evaluation.limit=2", "evaluation.text.window=8", f"store={tmp_path / 'store'}"]
    config = compose("model=hf_causal_lm", f"model.path={family_checkpoint('llama')}", *words)
    run = Prepared(config).run().run
    monkeypatch.setenv("QIG_STORE", str(tmp_path / "store"))
    arguments = [run, "--to", str(tmp_path / "out")]
    assert main(arguments) == 0
    written = capsys.readouterr().out.split()
    monkeypatch.setenv("QIG_STORE", str(tmp_path / "nowhere"))
    arguments += ["--store", str(tmp_path / "store")]
    assert main(arguments) == 0
    assert capsys.readouterr().out.split() == written
    assert sorted(path.rpartition(".")[2] for path in written) == ["csv", "md", "pdf", "png"]
    frame = pd.read_csv(next(path for path in written if path.endswith(".csv")))
    assert set(frame.site) == {"attn_in", "mlp_in", "mlp_out"} and frame.weight_share.max() <= 1
    monkeypatch.setattr("qig.data.calibration.digest", lambda batches: "0" * 64)
    assert main(arguments) == 1
    assert "calibrated on other samples" in capsys.readouterr().err
