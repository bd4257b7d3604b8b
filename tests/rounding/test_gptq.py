"""GPTQ and GPTAQ against explicit least squares per column, and what their token weights mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from oracles import rounding as oracle
from qig.config.schema import GptaqRounding, GptqRounding
from qig.errors import QigError
from qig.quantization.grid import WeightGrid, quantize_weight
from qig.quantization.setting import Setting
from qig.rounding.gptq import gptq, inverse_factor
from qig.rounding.rounder import LinearInputs, weighted_moment
from qig.rounding.second_order import Gptaq, Gptq

ROWS, COLUMNS, TOKENS = 6, 24, 60
GRIDS = {
    "asymmetric-8": (3, False, 8),
    "asymmetric-row": (3, False, None),
    "symmetric-row": (4, True, None),
    "symmetric-12": (4, True, 12),
}


def problem(seed: int, dead: int = 0, tokens: int = TOKENS):
    """Weight ``[out, in]``, correlated inputs and their exact-stream versions ``[tokens, in]``, token weights."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(COLUMNS, COLUMNS)) / 3 + np.diag(np.exp(generator.normal(size=COLUMNS)))
    x = generator.normal(size=(tokens, COLUMNS)) @ mixing
    exact = x + 0.3 * generator.normal(size=x.shape) @ mixing
    x[:, COLUMNS - dead :] = 0
    return generator.normal(size=(ROWS, COLUMNS)).astype(np.float32), x, exact, generator.random(tokens) ** 2


def run(weight, x, token_weights, grid, exact=None, **options):
    defaults = {"damping": 0.01, "block": 128, "order_by_activation": False, "static_groups": False}
    tokens = torch.from_numpy(token_weights)
    x = torch.from_numpy(x)
    asymmetry = None
    if exact is not None:
        asymmetry = weighted_moment([torch.from_numpy(exact) - x], [x], [tokens])
    moment = weighted_moment([x], [x], [tokens])
    return gptq(torch.from_numpy(weight), moment, WeightGrid(*grid), asymmetry=asymmetry, **{**defaults, **options})


def assert_same(found, expected) -> None:
    integers, scale, zero = expected
    np.testing.assert_array_equal(found.integers.numpy(), integers)
    np.testing.assert_allclose(found.scale.numpy(), scale, rtol=1e-5)
    if found.zero_point is not None:
        np.testing.assert_array_equal(found.zero_point.numpy(), zero)


def least_squares(weight, x, token_weights, grid, damping=0.01, **options):
    bits, symmetric, group = grid
    return oracle.column_by_column(
        weight, x, token_weights, bits=bits, symmetric=symmetric, group=group, damping=damping, **options
    )


@pytest.mark.parametrize("asymmetric_term", [False, True], ids=["gptq", "gptaq"])
@pytest.mark.parametrize("static", [False, True], ids=["renewed", "static"])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_every_column_is_a_least_squares_problem(grid, static, asymmetric_term):
    for seed, damping in ((0, 0.01), (1, 0.2)):
        weight, x, exact, token_weights = problem(seed)
        exact = exact if asymmetric_term else None
        found = run(weight, x, token_weights, grid, exact, damping=damping, static_groups=static)
        assert_same(found, least_squares(weight, x, token_weights, grid, damping, static=static, exact=exact))
        assert not torch.equal(found.integers, quantize_weight(torch.from_numpy(weight), WeightGrid(*grid)).integers)


@pytest.mark.parametrize("asymmetric_term", [False, True], ids=["gptq", "gptaq"])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_order_by_activation(grid, asymmetric_term):
    weight, x, exact, token_weights = problem(2)
    exact = exact if asymmetric_term else None
    found = run(weight, x, token_weights, grid, exact, order_by_activation=True, static_groups=True)
    expected = least_squares(weight, x, token_weights, grid, by_activation=True, static=True, exact=exact)
    assert_same(found, expected)
    own_order = run(weight, x, token_weights, grid, exact, static_groups=True)
    assert not torch.equal(found.integers, own_order.integers)


@pytest.mark.parametrize("block", [1, 4, 5, 8, 16, 24, 128])
@pytest.mark.parametrize("grid", [GRIDS["asymmetric-8"], GRIDS["symmetric-12"]], ids=["8", "12"])
def test_block_size_is_speed_alone(grid, block):
    """Also where it neither divides the group nor is a multiple of it."""
    weight, x, exact, token_weights = problem(3)
    found = run(weight, x, token_weights, grid, exact, block=block)
    assert_same(found, least_squares(weight, x, token_weights, grid, exact=exact))


def test_block_size_where_columns_are_reordered():
    weight, x, exact, token_weights = problem(4)
    options = {"order_by_activation": True, "static_groups": True}
    expected = least_squares(weight, x, token_weights, (3, False, 8), by_activation=True, static=True, exact=exact)
    for block in (1, 5, 7, 128):
        assert_same(run(weight, x, token_weights, (3, False, 8), exact, block=block, **options), expected)


@pytest.mark.parametrize("asymmetric_term", [False, True], ids=["gptq", "gptaq"])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_inputs_that_never_occur_are_rounded_to_nearest(grid, asymmetric_term):
    weight, x, exact, token_weights = problem(5, dead=3)
    if asymmetric_term:
        exact[:, COLUMNS - 3 :] = 0
    exact = exact if asymmetric_term else None
    found = run(weight, x, token_weights, grid, exact, static_groups=True)
    assert_same(found, least_squares(weight, x, token_weights, grid, static=True, exact=exact))
    nearest = quantize_weight(torch.from_numpy(weight), WeightGrid(*grid))
    assert torch.equal(found.integers[:, -3:], nearest.integers[:, -3:])
    all_dead = run(weight, 0 * x, token_weights, grid, static_groups=True)
    assert torch.equal(all_dead.integers, nearest.integers)


@given(st.integers(0, 10_000), st.sampled_from(list(GRIDS.values())))
def test_less_output_error_than_nearest_on_correlated_inputs(seed, grid):
    """The inputs lie near six directions: what one column loses the others can make up for."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(TOKENS, 6)) @ generator.normal(size=(6, COLUMNS))
    x += 0.1 * generator.normal(size=x.shape)
    weight, token_weights = generator.normal(size=(16, COLUMNS)).astype(np.float32), generator.random(TOKENS)
    ours = run(weight, x, token_weights, grid).dequantize().numpy()
    nearest = quantize_weight(torch.from_numpy(weight), WeightGrid(*grid)).dequantize().numpy()
    error = oracle.output_error(weight, ours, x, token_weights)
    assert error < 0.8 * oracle.output_error(weight, nearest, x, token_weights)


@given(st.integers(0, 10_000))
def test_gptaq_comes_closer_to_the_exact_streams_output_than_gptq(seed):
    """The drift is one that the inputs themselves can express, so that it can be made up for."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(TOKENS, 6)) @ generator.normal(size=(6, COLUMNS))
    x += 0.1 * generator.normal(size=x.shape)
    exact = x @ (np.eye(COLUMNS) + 0.1 * generator.normal(size=(COLUMNS, COLUMNS)))
    weight, token_weights = generator.normal(size=(16, COLUMNS)).astype(np.float32), generator.random(TOKENS)
    grid = (4, False, 8)
    found = [run(weight, x, token_weights, grid, e).dequantize().numpy() for e in (None, exact)]
    errors = [oracle.output_error(weight, rounded, x, token_weights, exact) for rounded in found]
    assert errors[1] < 0.9 * errors[0]


def settings(**changes):
    values = {"stream": "exact", "damping": 0.01, "block": 128, "order_by_activation": False, "static_groups": False}
    schema = GptaqRounding if "asymmetry" in changes else GptqRounding
    return schema(**{"kind": "gptq", **values, **changes})


SETTING = Setting(WeightGrid(3, False, 8), None, None)


def linear_of(weight: np.ndarray) -> nn.Linear:
    linear = nn.Linear(COLUMNS, len(weight))
    linear.weight = nn.Parameter(torch.from_numpy(weight), requires_grad=False)
    return linear


def batched(values: np.ndarray) -> list[torch.Tensor]:
    """Tokens as two micro-batches of two samples each."""
    half = len(values) // 2
    return [torch.from_numpy(part).unflatten(0, (2, -1)) for part in (values[:half], values[half:])]


def test_linears_of_a_site_under_token_weights():
    weight, x, exact, token_weights = problem(6)
    other = weight[:0:-1].copy()
    linears = {"q": linear_of(weight), "k": linear_of(other)}
    inputs = LinearInputs(batched(exact), batched(x), batched(token_weights))
    plain = Gptq(settings()).round(linears, SETTING, inputs)  # on the exact stream
    assert_same(plain["q"], least_squares(weight, exact, token_weights, (3, False, 8)))
    assert_same(plain["k"], least_squares(other, exact, token_weights, (3, False, 8)))
    found = Gptq(settings(stream="quantized")).round(linears, SETTING, inputs)
    assert_same(found["q"], least_squares(weight, x, token_weights, (3, False, 8)))
    for share in (1.0, 0.25):
        both = Gptaq(settings(stream="quantized", asymmetry=share)).round(linears, SETTING, inputs)
        target = x + np.float32(share) * (exact - x)
        assert_same(both["k"], least_squares(other, x, token_weights, (3, False, 8), exact=target))
    none = Gptaq(settings(stream="quantized", asymmetry=0.0)).round(linears, SETTING, inputs)
    assert_same(none["k"], least_squares(other, x, token_weights, (3, False, 8)))


def test_moments_of_tokens_beside_a_massive_one():
    """As exact as float32 is for each pair of channels; the float64 sum is the oracle."""
    generator = np.random.default_rng(3)
    x, token_weights = generator.normal(size=(64, COLUMNS)).astype(np.float32), generator.random(64)
    x[0, :3] = 24_000, -8_000, 500
    found = weighted_moment(batched(x), batched(x), batched(token_weights)).numpy()
    expected = (x.astype(float) * token_weights[:, None]).T @ x.astype(float)
    size = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
    assert found.dtype == np.float64 and np.abs(found - expected).max() > 0
    assert (np.abs(found - expected) <= 1e-6 * size).all()


def test_integer_weights_are_repeated_tokens():
    weight, x, exact, _ = problem(7)
    times = np.random.default_rng(0).integers(0, 4, len(x))
    weighted = run(weight, x, times.astype(float), (3, False, 8), exact)
    repeated_x, repeated_exact = np.repeat(x, times, axis=0), np.repeat(exact, times, axis=0)
    repeated = run(weight, repeated_x, np.ones(len(repeated_x)), (3, False, 8), repeated_exact)
    assert torch.equal(weighted.integers, repeated.integers)
    assert not torch.equal(weighted.integers, run(weight, x, np.ones(len(x)), (3, False, 8), exact).integers)


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1e6])
def test_token_weights_have_no_unit(unit):
    """Equal weights, whatever their size, are no weights; also where inputs are missing."""
    weight, x, exact, token_weights = problem(8, dead=2)
    for weights in (np.ones(len(x)), token_weights):
        one, other = (run(weight, x, weights * factor, (3, False, 8), exact, damping=0.1) for factor in (1, unit))
        assert torch.equal(one.integers, other.integers)
        torch.testing.assert_close(one.scale, other.scale, rtol=1e-5, atol=0)


def test_tokens_without_weight_may_hold_anything():
    weight, x, exact, token_weights = problem(9)
    token_weights[:5] = 0
    before = run(weight, x, token_weights, (3, False, 8), exact)
    x[:5], exact[:5] = np.nan, np.inf
    assert torch.equal(before.integers, run(weight, x, token_weights, (3, False, 8), exact).integers)


def test_order_of_its_own_and_groups_that_are_renewed_exclude_each_other():
    weight, x, _, token_weights = problem(0)
    with pytest.raises(ValueError, match="static groups"):
        run(weight, x, token_weights, (3, False, 8), order_by_activation=True)
    assert_same(  # one group a row: its scale does not depend on the order
        run(weight, x, token_weights, (3, False, None), order_by_activation=True),
        least_squares(weight, x, token_weights, (3, False, None), by_activation=True),
    )


@pytest.mark.parametrize("bits", [2, 5, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_inputs_that_know_nothing_of_each_other_are_rounded_to_nearest(bits, symmetric):
    """Nothing can be made up for; eight bits need all that a byte holds."""
    weight, grid = torch.from_numpy(problem(11)[0]), WeightGrid(bits, symmetric, 8)
    energy = torch.linspace(0.5, 3, COLUMNS, dtype=torch.float64).diag()
    options = {"damping": 0.01, "block": 128, "order_by_activation": False, "static_groups": False}
    found, nearest = gptq(weight, energy, grid, **options), quantize_weight(weight, grid)
    for name in ("integers", "scale", "zero_point"):
        one, other = getattr(found, name), getattr(nearest, name)
        assert (one is None and other is None) or (one.dtype == other.dtype and torch.equal(one, other))


def test_the_damping_is_a_share_of_the_mean_over_inputs_that_occur():
    """U of H^-1 = U^T U is diagonal where H is: its entries are those of (H + damping)^-1/2."""
    energy = torch.tensor([4.0, 0.0, 1.0, 0.0, 7.0], dtype=torch.float64)
    factor = inverse_factor(energy.diag(), 0.5)
    damped = torch.tensor([4.0, 4.0, 1.0, 4.0, 7.0], dtype=torch.float64) + 0.5 * 4
    torch.testing.assert_close(factor, damped.rsqrt().diag())


def test_fewer_tokens_than_inputs_need_damping():
    weight, x, _, token_weights = problem(0, tokens=10)
    assert_same(run(weight, x, token_weights, (3, False, 8)), least_squares(weight, x, token_weights, (3, False, 8)))
    with pytest.raises(QigError, match=r"raise rounding\.damping \(now 0"):
        run(weight, x, token_weights, (3, False, 8), damping=0.0)


def test_moments_whose_inverse_no_number_holds():
    """Positive definite, and factored; its inverse overflows."""
    tiny = 1e-310 * torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    with pytest.raises(QigError, match=r"Hessian of 2 inputs has no stable inverse; raise rounding\.damping \(now 0"):
        inverse_factor(tiny, 0.0)


def test_the_weight_is_left_as_it_was():
    weight, x, exact, token_weights = problem(0)
    before = weight.copy()
    run(weight, x, token_weights, (3, False, 8), exact)
    np.testing.assert_array_equal(weight, before)


@pytest.mark.parametrize("asymmetric_term", [False, True], ids=["gptq", "gptaq"])
def test_sixteen_bit_weights_and_inputs(asymmetric_term):
    """What a bfloat16 model holds is rounded as exactly as anything else."""
    weight, x, exact, token_weights = problem(10)
    short = [torch.from_numpy(values).bfloat16() for values in (weight, x, exact)]
    weight, x, exact = (values.double().numpy() for values in short)
    linear = nn.Linear(COLUMNS, ROWS).bfloat16()
    linear.weight = nn.Parameter(short[0], requires_grad=False)
    tokens = torch.from_numpy(token_weights)[None]
    inputs = LinearInputs([short[2][None]], [short[1][None]], [tokens])
    share = {"asymmetry": 1.0} if asymmetric_term else {}
    method = Gptaq if asymmetric_term else Gptq
    found = method(settings(stream="quantized", **share)).round({"q": linear}, SETTING, inputs)["q"]
    exact = exact if asymmetric_term else None
    assert_same(found, least_squares(weight, x, token_weights, (3, False, 8), exact=exact))
