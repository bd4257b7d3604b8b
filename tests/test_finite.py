"""The checks against elementwise counting, and what an error says of its place."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qig.errors import NonFiniteError
from qig.finite import is_finite, located, refuse_non_finite


@given(arrays.arrays(np.float32, arrays.array_shapes(min_dims=1, max_dims=3, min_side=0),
                     elements=st.floats(width=32)))  # fmt: skip
def test_finite_as_elementwise(values):
    assert is_finite(torch.from_numpy(values)) == bool(np.isfinite(values).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_extremes_of_every_type_are_finite(dtype):
    x = torch.tensor([torch.finfo(dtype).min, 0, torch.finfo(dtype).max], dtype=dtype)
    assert is_finite(x) and not is_finite(x * 2)
    assert not is_finite(x.where(x != 0, torch.nan))


def test_counts_and_names_the_first_sample_and_ignores_padding():
    x = torch.zeros(3, 4, 5)
    x[1, 0, :2], x[1, 1, 3], x[2, 0, 0] = torch.nan, -torch.inf, torch.inf
    real = torch.ones(3, 4, dtype=bool)
    before = x.clone()
    with pytest.raises(NonFiniteError, match="scores at sample b: 2 NaN and 1 infinite of 20 values"):
        refuse_non_finite("scores", x, ["a", "b", "c"], real)
    with pytest.raises(NonFiniteError, match="scores: 2 NaN and 2 infinite of 60 values"):
        refuse_non_finite("scores", x)
    real[1, :2] = False
    with pytest.raises(NonFiniteError, match="sample c: 0 NaN and 1 infinite"):
        refuse_non_finite("scores", x, ["a", "b", "c"], real)
    real[2, 0] = False
    refuse_non_finite("scores", x, ["a", "b", "c"], real)
    assert torch.equal(x.nan_to_num(7), before.nan_to_num(7))


def test_the_innermost_place_counts_and_travels_between_processes():
    with pytest.raises(NonFiniteError) as caught, located(4, "outer"), located(None, "mlp_in"):
        refuse_non_finite("scales", torch.tensor([torch.nan]))
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.block, error.site, error.sample) == (4, "mlp_in", None)
    assert str(error) == str(caught.value)
    assert str(error).startswith("non-finite scales at block 4, mlp_in: 1 NaN and 0 infinite of 1 values; check")
