"""Seeds, threads, deterministic kernels, and the names of operations that have none."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
import torch

from qig.determinism import noted, prepare, strictly
from qig.evaluation.containment import contained


@pytest.fixture(autouse=True)
def as_it_was():
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode(mode)


def drawn():
    return random.random(), np.random.rand(), torch.rand(1).item()


def without_form():
    """torch has no deterministic form of ``put_`` without accumulation."""
    torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))


def test_equal_seeds_draw_equal_numbers_from_every_generator():
    prepare(7, 1)
    first = drawn()
    prepare(7, 1)
    assert drawn() == first
    prepare(8, 1)
    assert all(a != b for a, b in zip(first, drawn(), strict=True))


def test_threads_and_kernels_are_set(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    prepare(0, 3)
    assert torch.get_num_threads() == 3
    assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()


def test_what_has_no_deterministic_form_is_named_and_other_warnings_are_shown():
    prepare(0, 1)
    with pytest.warns(UserWarning, match="something else") as shown, noted() as found:
        without_form()
        warnings.warn("something else", stacklevel=1)
    assert found == {"put_"} and len(shown) == 1


def test_it_is_named_where_warnings_are_silenced():
    prepare(0, 1)
    with noted() as found, contained():
        without_form()
    assert found == {"put_"}


def test_strict_work_is_done_once():
    modes = []
    assert strictly(0, 1, lambda: modes.append(torch.get_deterministic_debug_mode())) == set()
    assert modes == [2]  # an operation without a deterministic form is an error


def test_work_that_cannot_be_strict_is_done_again_with_the_same_seeds():
    numbers = []

    def work():
        numbers.append(drawn())
        without_form()

    assert strictly(3, 1, work) == {"put_"}
    assert len(numbers) == 2 and numbers[0] == numbers[1]


def test_other_errors_of_the_work_are_its_own():
    tries = []

    def work():
        tries.append(1)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        strictly(0, 1, work)
    assert tries == [1]
    assert torch.get_deterministic_debug_mode() == 1
