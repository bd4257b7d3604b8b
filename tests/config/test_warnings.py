"""What has no effect, is called otherwise than it is, or is an embedded model's setting on another one, is told."""

import shutil

import pytest

from qig.config.validation import resolve
from qig.config.warnings import doubts
from qig.models.tiny import checkpoint_dir
from qig.runner import Prepared

OWN = ("model=hf", "model.path=/models/own", "model.name=own")
REAL = ("evaluation=paper", "calibration=sharegpt4v_coco", "calibration.path=c.json", "calibration.image_folder=/data")


def said(config):
    return [doubt.split(" ")[0] for doubt in doubts(config, "qwen2_vl")]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((*OWN, *REAL), []),
        ((*OWN, *REAL, "evaluation.limit=1100"), ["evaluation.limit=1100:"]),
        ((*OWN, *REAL, "evaluation.max_empty_share=1"), ["evaluation.max_empty_share=1:"]),
        ((*OWN, *REAL, "evaluation.tasks=[mmmu_val,qig_digitgrid]"), ["evaluated"]),
        ((*OWN, "evaluation=paper"), ["calibrated"]),
        ((*OWN, "evaluation=paper", "method=rtn"), []),
        ((*OWN,), ["evaluated", "calibrated"]),
        (("model=qwen2_vl_2b", *REAL), []),
        (("model=llava_onevision_7b", "model.path=/models/qwen", *REAL), ["model.name=llava_onevision_7b"]),
        (("model=qwen2_5_vl_7b", *REAL), ["model.name=qwen2_5_vl_7b"]),
        (("model=tiny_internvl", "evaluation.limit=4"), []),
        (("model=smol_internvl", "evaluation.limit=4", "evaluation.max_empty_share=1"), []),
        (("method=smoothquant", "sensitivity=qig"), ["sensitivity=qig"]),
        (("method=rtn", "sensitivity=attention"), ["sensitivity=attention"]),
        (("method=rtn", "rounding=gptq", "sensitivity=attention"), []),
        (("method=awq", "sensitivity.control=permuted"), ["sensitivity.control=permuted"]),
        (("method=awq", "sensitivity.control=without_first"), []), (("sensitivity.control=first_mean",), []),
        (("method=mbq", "sensitivity.control=modality_mean"), ["sensitivity.control=modality_mean"]),
        (("method=mbq", "sensitivity.control=permuted"), []),
        (("method=rtn", "sensitivity.control=permuted"), []),  # no weights, of which RTN says nothing
        (("method=smoothquant", "equalization.share_attn_out=true"), ["equalization.share_attn_out=true"]),
        (("method=awq", "equalization.share_attn_out=true"), []),
        (("quant=w3a16", "sensitivity.quantized_activations=true"), ["sensitivity.quantized_activations=true"]),
        (("quant=w4a8", "sensitivity.quantized_activations=true"), []),
        (("sensitivity.quantized_branch=constant",), []), (("method=qig_release", "quant=w4a8"), []),
        (("sensitivity.quantized_branch=constant", "sensitivity.target=output"),
         ["sensitivity.quantized_branch=constant"]),
        (("method=mbq_release", "rounding=gptq"), ["sensitivity.balance=per_token,"]),
        (("method=mbq_release", "rounding=gptq", "sensitivity.balance=per_modality"), []),
        (("method=mbq_release",), []), (("method=mbq", "rounding=gptq"), []),
        (("quant=w4a16", "quant.weights.bits=5"), ["quant.name=w4a16"]),
        (("quant=w4a8", "quant.activations.bits=6"), ["quant.name=w4a8"]),
        (("quant=w4a16", "quant.weights.bits=5", "quant.name=w5a16_mine"), []),
        (("quant=w4a16", "quant.weights.bits=5", "quant.name=fine"), []),
        (("quant=w3a16_g64",), []), (("quant=w4a4",), []), (("quant=fp16",), []),
    ],
)
def test_what_is_doubtful(compose, words, expected):
    assert said(resolve(compose(*words))) == expected


def test_a_run_says_so_at_its_start_and_not_when_the_store_has_it(compose, tmp_path, monkeypatch, caplog):
    shutil.copytree(checkpoint_dir("tiny_internvl"), tmp_path / "own")
    prepared = Prepared(compose("model=hf", f"model.path={tmp_path / 'own'}", "model.name=own", "method=rtn",
                                "evaluation.limit=4", "tracking=none", f"store={tmp_path / 'store'}"))
    seen = []
    monkeypatch.setattr("qig.stages.Stages.record", lambda *_: seen.append(caplog.text) or ("id", False))
    prepared.run()
    assert "own rtn: evaluation.limit=4: only the first 4 of each task" in seen[0]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    caplog.clear()
    monkeypatch.setattr(Prepared, "cached", True)
    prepared.run()
    assert caplog.text == ""
