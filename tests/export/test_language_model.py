"""A quantized language model as others load it: AutoModelForCausalLM and a tokenizer, the evaluated logits."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qig.export.__main__ import main
from qig.quantized import load_checkpoint


def test_logits_are_those_of_the_evaluated_model(family_checkpoint, make_run, tmp_path):
    path = f"model.path={family_checkpoint('llama')}"
    words = ("quant=w3a16", "method=smoothquant", "calibration.max_tokens=24", "evaluation.text.window=16")
    run = make_run("model=hf_causal_lm", path, "model.dtype=float32", *words)
    for more in ([], ["--verify"]):
        assert main([str(run), "--to", str(tmp_path / "out"), *more]) == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    inputs = AutoTokenizer.from_pretrained(tmp_path / "out")("the image shows a red 7", return_tensors="pt")
    with torch.no_grad():
        found = model(input_ids=inputs["input_ids"]).logits
        expected = load_checkpoint(run, torch.device("cpu")).model(input_ids=inputs["input_ids"]).logits
    assert torch.equal(found, expected)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "AutoModelForCausalLM, AutoTokenizer" in card and "pipeline_tag: text-generation" in card
    assert "with running text." in card and "lmms_eval" not in card
