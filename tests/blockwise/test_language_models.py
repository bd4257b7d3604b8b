"""Language models: block by block they are their forward pass, and every method runs on them from text to record."""

from __future__ import annotations

import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from families.table import LANGUAGE
from qig.blockwise.activations import Activations
from qig.blockwise.streams import Streams
from qig.config.schema import Model, Outliers
from qig.data.calibration import collate
from qig.data.samples import CalibrationSample, PlainText, single_turn
from qig.data.tokens import TokenKind
from qig.errors import ConfigError, EvaluationError
from qig.models.loading import open_model
from qig.quantized import load_checkpoint
from qig.runner import Prepared

CPU = torch.device("cpu")
TEXTS = ("the image shows a red 7 and a blue 4", "red", "which digit is in row 2 column 3 ? the digit is 5 . " * 4)
FEW = (
    "tracking=none", "calibration.samples=3", "calibration.max_tokens=40", "equalization.points=3",
    "equalization.step=0.4", "evaluation.limit=5", "evaluation.text.window=48",
)  # fmt: skip


def opened(folder):
    return open_model(Model("x", str(folder), "float32", Outliers(0.0, 0)), CPU)


def batches_of(loaded, tokens_per_batch):
    samples = [CalibrationSample(f"plain {i}", (PlainText(text),)) for i, text in enumerate(TEXTS)]
    samples += [single_turn(f"turn {i}", [], text, "the digit is 7 .") for i, text in enumerate(TEXTS)]
    return collate(samples, loaded.processor, loaded.model, loaded.image_token_ids, tokens_per_batch)


@pytest.mark.parametrize("name", LANGUAGE)
@pytest.mark.parametrize("tokens_per_batch", [1, 10_000])
@torch.no_grad()
def test_logits_block_by_block_are_those_of_the_forward_pass(family_checkpoint, name, tokens_per_batch):
    folder = family_checkpoint(name)
    loaded = opened(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for batch in batches_of(loaded, tokens_per_batch):
        streams = Streams(loaded, [batch], Activations(CPU), with_quantized=True)
        for index in range(len(loaded.blocks)):
            with loaded.block(index) as block:
                streams.advance(index, block, block)
        with loaded.frame():
            ours = [loaded.model.lm_head(loaded.model.model.norm(x[0])) for x in (streams.exact, streams.quantized)]
        expected = model(**batch.inputs, use_cache=False).logits
        assert all(torch.equal(logits, expected) for logits in ours)


@pytest.mark.parametrize("name", LANGUAGE)
def test_tokens_are_text_special_or_padding(family_checkpoint, name):
    loaded = opened(family_checkpoint(name))
    tokenizer = loaded.processor.tokenizer
    for batch in batches_of(loaded, 10_000):
        assert not bool((batch.kinds == TokenKind.VISION).any())
        assert torch.equal(batch.real, batch.inputs["attention_mask"].bool())
        for row, sample in enumerate(batch.ids):
            ids, kinds = batch.inputs["input_ids"][row], batch.kinds[row]
            answer = tokenizer.decode(ids[kinds == TokenKind.ANSWER]).strip()
            text = TEXTS[int(sample[-1])]
            assert answer == (text.strip() if sample.startswith("plain") else "the digit is 7 .")
            prompt = tokenizer.decode(ids[kinds == TokenKind.PROMPT]).strip()
            assert prompt == ("" if sample.startswith("plain") else text.strip())
            special = tokenizer.decode(ids[kinds == TokenKind.SPECIAL])
            assert (special != "") == (sample.startswith("turn") or name == "mistral")
            assert special.count("<s>") == (name == "mistral")


@pytest.mark.parametrize(
    ("name", "method"),
    [("llama", "qig"), ("mistral", "gptq_qig"), ("qwen2", "vlmq"), ("qwen3", "awq_clip"), ("llama", "smoothquant")],
)
def test_calibrated_evaluated_and_loaded_again(family_checkpoint, compose, tmp_path, monkeypatch, name, method):
    if method != "qig":
        monkeypatch.setattr("qig.runner.BASELINES", {})  # they take no other way than the run itself
    path = f"model.path={family_checkpoint(name)}"
    config = compose("model=hf_causal_lm", path, "quant=w3a16", f"store={tmp_path}", f"method={method}", *used(method))
    outcome = Prepared(config).run()
    record = json.loads((tmp_path / "runs" / outcome.run / "record.json").read_text())
    assert record["metrics"]["python_docs"]["n"] == 5 and math.isfinite(record["metrics"]["python_docs"]["nll"])
    assert all(site["fallback"] in (None, []) for site in record["sites"])
    assert len(record["protocol"]["text"]["sha256"]) == 64
    quantized = load_checkpoint(tmp_path / "runs" / outcome.run, CPU)
    assert len(quantized.blocks) == 3 and quantized.processor.tokenizer.pad_token is not None


def used(method: str) -> list[str]:
    """Of the few settings those that the method has."""
    searches = method in ("qig", "awq_clip")
    return [word for word in FEW if searches or not word.startswith("equalization")]


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["method=mbq"], ConfigError, r"sensitivity\.kind=modality_gradient .* vision tokens"),
        (["method=qig", "sensitivity.granularity=modality"], ConfigError, r"sensitivity\.granularity=modality"),
        (["method=qig", "sensitivity.control=modality_mean"], ConfigError, r"sensitivity\.control=modality_mean"),
        (["method=awq", "evaluation=digitgrid"], EvaluationError, r"qig_digitgrid asks about pictures"),
    ],
)
def test_what_needs_vision_tokens_is_refused_before_anything_is_loaded(
    family_checkpoint, compose, tmp_path, overrides, error, message
):
    config = compose("model=hf_causal_lm", f"model.path={family_checkpoint('llama')}", f"store={tmp_path}", *overrides)
    with pytest.raises(error, match=message):
        Prepared(config)


def test_rtn_needs_no_modalities(family_checkpoint, compose, tmp_path):
    path = f"model.path={family_checkpoint('llama')}"
    Prepared(compose("model=hf_causal_lm", path, f"store={tmp_path}", "method=rtn", "sensitivity.granularity=modality"))
