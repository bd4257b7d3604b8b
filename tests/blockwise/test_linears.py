"""Which linears a pass quantizes: those of the pattern, whether a site describes their inputs or none does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qig.blockwise.activations import Activations
from qig.blockwise.run import BlockPass
from qig.errors import ConfigError
from qig.models.loading import load
from qig.quantization.linear import QuantizedLinear

CPU = torch.device("cpu")


def test_only_the_linears_of_the_pattern_are_quantized(configured, passed, tmp_path):
    config = configured("method=awq", r"quant.linears='mlp\.(gate|up|down)_proj'")
    loaded, _ = passed(config, tmp_path)
    found = {name for name, m in loaded.blocks[0].named_modules() if isinstance(m, QuantizedLinear)}
    assert found == {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}


def test_a_linear_that_no_site_describes_is_rounded_by_methods_that_need_no_inputs(
    configured, digit_samples, batches_of, tmp_path
):
    def run(method: str):
        config = configured(f"method={method}", r"quant.linears='(mlp|adapter)\..*'", "quant=w4a8")
        loaded = load(config.model, CPU)
        for block in loaded.blocks:
            block.adapter = nn.Sequential(nn.Linear(4, 4))
        batches = batches_of(loaded, digit_samples[:3])
        BlockPass(loaded, batches, config, Activations(CPU), tmp_path / method).run()
        return loaded.blocks[0]

    assert isinstance(run("rtn").adapter[0], QuantizedLinear)
    with pytest.raises(ConfigError, match=r"quant\.linears selects adapter\.0, whose inputs no site describes"):
        run("gptq")
