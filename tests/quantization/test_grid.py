"""Integer grids against NumPy loops over groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from oracles import grid as oracle
from qig.quantization.grid import (
    ActivationGrid,
    WeightGrid,
    fake_quantize_activation,
    packed_bytes,
    quantize_weight,
    straight_through,
    weight_parameters,
)

ALL_BITS = range(2, 9)


def random(shape, seed=0, scale=0.1):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def awkward() -> np.ndarray:
    """Rows that break careless quantizers: zeros, constants, one sign, huge, tiny, outliers."""
    w = random((9, 128))
    w[0] = 0
    w[1, :64], w[1, 64:] = 0.25, -0.25
    w[2] = np.abs(w[2]) + 1
    w[3] = -np.abs(w[3]) - 1
    w[4] *= 1e30
    w[5] *= 1e-30
    w[6, 5] = 1e4
    w[7, 1:] = 0
    w[8] = np.arange(128) - 64
    return w


def assert_like_oracle(weight: np.ndarray, bits: int, is_symmetric: bool, group: int | None) -> None:
    found = quantize_weight(torch.from_numpy(weight), WeightGrid(bits, is_symmetric, group))
    if is_symmetric:
        integers, scales, values = oracle.symmetric(weight, bits, group)
        assert found.zero_point is None and found.integers.dtype == torch.int8
    else:
        integers, scales, zeros, values = oracle.asymmetric(weight, bits, group)
        assert found.integers.dtype == found.zero_point.dtype == torch.uint8
        np.testing.assert_array_equal(found.zero_point.numpy(), zeros)
    np.testing.assert_array_equal(found.integers.numpy(), integers)
    np.testing.assert_allclose(found.scale.numpy(), scales, rtol=1e-6)
    np.testing.assert_allclose(found.dequantize().numpy(), values, rtol=1e-6, atol=0)
    np.testing.assert_array_equal(oracle.fake_weight(weight, bits, is_symmetric, group), values.astype(np.float64))


@pytest.mark.parametrize("group", [128, 64, None])
@pytest.mark.parametrize("is_symmetric", [False, True])
@pytest.mark.parametrize("bits", ALL_BITS)
def test_random_weights_of_an_awkward_shape(bits, is_symmetric, group):
    assert_like_oracle(random((37, 384), seed=bits), bits, is_symmetric, group)


@pytest.mark.parametrize("group", [64, None])
@pytest.mark.parametrize("is_symmetric", [False, True])
@pytest.mark.parametrize("bits", ALL_BITS)
def test_rows_that_break_careless_quantizers(bits, is_symmetric, group):
    assert_like_oracle(awkward(), bits, is_symmetric, group)


@given(
    arrays.arrays(np.float32, (3, 12), elements=st.floats(-1e6, 1e6, width=32)),
    st.sampled_from(ALL_BITS),
    st.booleans(),
    st.sampled_from([1, 3, 4, 12, None]),
)
def test_any_weights(weight, bits, is_symmetric, group):
    assert_like_oracle(weight, bits, is_symmetric, group)


@pytest.mark.parametrize("is_symmetric", [False, True])
@pytest.mark.parametrize("bits", ALL_BITS)
def test_dequantize_is_integer_minus_zero_point_times_scale(bits, is_symmetric):
    found = quantize_weight(torch.from_numpy(random((5, 96))), WeightGrid(bits, is_symmetric, 32))
    for row in range(5):
        for column in range(96):
            zero = 0 if is_symmetric else int(found.zero_point[row, column // 32])
            expected = (int(found.integers[row, column]) - zero) * found.scale[row, column // 32]
            assert found.dequantize()[row, column] == expected


@pytest.mark.parametrize("bits", ALL_BITS)
def test_integers_use_the_whole_range_and_no_more(bits):
    weight = torch.from_numpy(random((64, 256)))
    asymmetric = quantize_weight(weight, WeightGrid(bits, False, 128)).integers
    assert (int(asymmetric.min()), int(asymmetric.max())) == (0, 2**bits - 1)
    symmetric = quantize_weight(weight, WeightGrid(bits, True, None)).integers.abs()
    assert (symmetric.amax(1) == 2 ** (bits - 1) - 1).all()


@pytest.mark.parametrize("is_symmetric", [False, True])
def test_stacked_linears_are_split_into_parts_of_their_own(is_symmetric):
    weight, grid = torch.from_numpy(random((9, 16))), WeightGrid(4, is_symmetric, 8)
    stacked = quantize_weight(weight, grid)
    for part, alone in zip(stacked.split([2, 7]), weight.split([2, 7]), strict=True):
        expected = quantize_weight(alone, grid)
        for name in ("integers", "scale", "zero_point"):
            found, meant, whole = (getattr(of, name) for of in (part, expected, stacked))
            assert (found is None) == (meant is None) == (is_symmetric and name == "zero_point")
            if found is not None:
                assert torch.equal(found, meant)
                assert found.untyped_storage().data_ptr() != whole.untyped_storage().data_ptr()


@pytest.mark.parametrize("bits", ALL_BITS)
def test_error_is_at_most_half_a_step_where_the_group_has_both_signs(bits):
    weight = torch.from_numpy(random((16, 256)))
    for grid in (WeightGrid(bits, False, 64), WeightGrid(bits, True, 64)):
        found = quantize_weight(weight, grid)
        steps = ((found.dequantize() - weight) / found.scale.repeat_interleave(64, 1)).abs()
        # the zero point is rounded too, which can shift an asymmetric group's end by another half step
        assert float(steps.max()) <= (0.5 if grid.symmetric else 1.0) * (1 + 1e-4)


@pytest.mark.parametrize("group", [64, None])
@pytest.mark.parametrize("is_symmetric", [False, True])
@pytest.mark.parametrize("bits", ALL_BITS)
def test_fake_quantization_is_idempotent(bits, is_symmetric, group):
    grid = WeightGrid(bits, is_symmetric, group)
    once = quantize_weight(torch.from_numpy(random((37, 384), seed=1)), grid)
    twice = quantize_weight(once.dequantize(), grid)
    torch.testing.assert_close(twice.dequantize(), once.dequantize(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("is_symmetric", [False, True])
def test_group_size_that_does_not_divide(is_symmetric):
    with pytest.raises(ValueError, match="group size 100 does not divide 384"):
        weight_parameters(torch.zeros(2, 384), WeightGrid(4, is_symmetric, 100))
    with pytest.raises(ValueError, match="group size 512 does not divide 384"):
        quantize_weight(torch.zeros(2, 384), WeightGrid(4, is_symmetric, 512))


def test_groups_do_not_influence_each_other():
    weight = torch.from_numpy(random((4, 256)))
    grid = WeightGrid(3, False, 64)
    before = quantize_weight(weight, grid).dequantize()
    changed = weight.clone()
    changed[:, 64:128] *= 100
    after = quantize_weight(changed, grid).dequantize()
    untouched = torch.ones(256, dtype=bool)
    untouched[64:128] = False
    assert torch.equal(before[:, untouched], after[:, untouched])
    assert not torch.equal(before[:, 64:128], after[:, 64:128])


def test_half_precision_weights_are_quantized_in_float32():
    weight = torch.from_numpy(random((8, 128))).bfloat16()
    found = quantize_weight(weight, WeightGrid(4, False, 64))
    assert torch.equal(found.integers, quantize_weight(weight.float(), WeightGrid(4, False, 64)).integers)
    assert found.dequantize(torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("is_symmetric", [False, True])
def test_sixteen_bit_values_are_the_float32_ones_rounded_once(is_symmetric, dtype):
    found = quantize_weight(torch.from_numpy(random((16, 128))), WeightGrid(4, is_symmetric, 32))
    zero = 0 if is_symmetric else found.zero_point.double().repeat_interleave(32, 1)
    exact = (found.integers.double() - zero) * found.scale.double().repeat_interleave(32, 1)
    assert torch.equal(found.dequantize(dtype), exact.float().to(dtype))
    scale = found.scale.to(dtype).repeat_interleave(32, 1)
    assert not torch.equal(found.dequantize(dtype), (found.integers - zero).to(dtype) * scale)


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
def test_activations_token_by_token(bits):
    x = random((2, 7, 48), seed=2, scale=3)
    x[0, 0] = 0
    x[1, 3, 7] = 500
    found = fake_quantize_activation(torch.from_numpy(x), ActivationGrid(bits))
    np.testing.assert_allclose(found.numpy(), oracle.fake_activation(x, bits), rtol=1e-6, atol=1e-12)
    wide = fake_quantize_activation(torch.from_numpy(x), ActivationGrid(bits, "range")).numpy()
    step = np.abs(x).max(-1, keepdims=True).clip(1e-5) / (2 ** (bits - 1) - 0.5)
    integers = np.rint(x / step).clip(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    np.testing.assert_allclose(wide, integers * step, rtol=1e-6, atol=1e-12)
    alone = fake_quantize_activation(torch.from_numpy(x[1, 3]), ActivationGrid(bits))
    assert torch.equal(alone, found[1, 3])  # one token's scale does not see the others
    half = torch.from_numpy(x).half()
    coarse = fake_quantize_activation(half, ActivationGrid(bits))
    assert coarse.dtype == torch.float16
    assert torch.equal(coarse, fake_quantize_activation(half.float(), ActivationGrid(bits)).half())


def test_packed_bytes_by_hand():
    # 37 x 384 integers of 3 bits, 37 * 3 groups with a 32-bit scale and a 3-bit zero point
    assert packed_bytes((37, 384), WeightGrid(3, False, 128)) == -(-(37 * 384 * 3 + 111 * 35) // 8) == 5814
    # symmetric rows: no zero points
    assert packed_bytes((10, 64), WeightGrid(4, True, None)) == (640 * 4 + 10 * 32) // 8 == 360


@given(st.integers(2, 8), st.integers(0, 2**31), st.sampled_from(["largest", "range"]))
def test_activations_are_the_same_with_and_without_gradients(bits, seed, scale):
    x = torch.randn(5, 33, generator=torch.Generator().manual_seed(seed)) * 10.0 ** (seed % 7 - 3)
    grid, before = ActivationGrid(bits, scale), x.clone()
    plain = fake_quantize_activation(x, grid)
    assert torch.equal(x, before)
    tracked = x.requires_grad_()
    passed = fake_quantize_activation(tracked, grid)
    assert passed.requires_grad and torch.equal(plain, passed)


def test_straight_through_moves_what_lies_on_the_ends_and_nothing_beyond():
    x = torch.tensor([-2.0, -0.6, -0.4, 0.4, 1.0, 2.4, 2.6, 3.4, 3.6, 9.0], requires_grad=True)
    offset = torch.tensor(-1.0, requires_grad=True)
    found = straight_through(x, -1, 2, offset)
    assert found.tolist() == [-1, -1, -1, -1, 0, 1, 2, 2, 2, 2]
    within = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1, 0, 0.0])
    moved = torch.autograd.grad(found.sum(), (x, offset))
    assert torch.equal(moved[0], within) and moved[1] == within.sum()
