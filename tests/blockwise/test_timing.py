"""Memory that is measured where no graphics card is: what is asked of torch, and in which order."""

import torch

from qig.blockwise.timing import PeakMemory, larger


def test_a_graphics_card_is_begun_before_its_peak_is_reset(monkeypatch):
    """A spawned process has not used it yet, and torch cannot reset what it has not begun."""
    asked = []
    monkeypatch.setattr("torch.cuda.init", lambda: asked.append("init"))
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda device: asked.append("reset"))
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: 7)
    with PeakMemory(torch.device("cuda:1")) as memory:
        pass
    assert asked == ["init", "reset"] and memory.so_far()["peak_device_bytes"] == 7


def test_the_peak_of_a_whole_is_that_of_its_largest_part():
    one, other = {"peak_host_bytes": 3, "peak_device_bytes": None}, {"peak_host_bytes": 5, "peak_device_bytes": 2}
    assert larger(one, other) == {"peak_host_bytes": 5, "peak_device_bytes": 2}
    assert larger(one, {}) == one
