"""Tensors put away come back bit for bit, wherever they waited, and leave nothing behind."""

from __future__ import annotations

import gc

import pytest
import torch

from qig.blockwise.activations import Activations, Mapped, brought, each_tensor
from qig.blockwise.capture import Call

CPU = torch.device("cpu")


@pytest.fixture(params=["device", "host", "disk"])
def activations(request, tmp_path):
    return Activations(CPU, request.param, tmp_path / "activations")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.bool, torch.int64])
@pytest.mark.parametrize("shape", [(2, 3, 5), (1,), (0, 4)])
def test_what_comes_back_is_what_went(activations, dtype, shape):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul(3).to(dtype)
    found = brought(activations.keep(tensor))
    assert found.dtype == dtype and torch.equal(found, tensor)


def test_views_and_transposes(activations):
    whole = torch.arange(24.0).view(4, 6)
    assert torch.equal(brought(activations.keep(whole.T[1:3])), whole.T[1:3])


def test_shelf_keeps_its_order(activations):
    shelf = activations.shelf(torch.full((2,), float(i)) for i in range(3))
    shelf.append(torch.full((2,), 3.0))
    assert len(shelf) == 4 and [float(x[0]) for x in shelf] == [0, 1, 2, 3]


def test_files_go_when_nobody_can_ask_any_more(tmp_path):
    activations = Activations(CPU, "disk", tmp_path / "a")
    shelf = activations.shelf([torch.ones(3), torch.zeros(3)])
    assert len(list((tmp_path / "a").iterdir())) == 2
    del shelf
    gc.collect()
    assert list((tmp_path / "a").iterdir()) == []
    activations.close()
    assert not (tmp_path / "a").exists()


def test_files_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.safetensors").write_bytes(b"left over")
    Activations(CPU, "disk", tmp_path / "a")
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize("place", ["device", "host", "disk"])
def test_what_is_set_aside_waits_on_disk_where_host_memory_lacks_room(tmp_path, monkeypatch, caplog, place):
    monkeypatch.setattr("qig.blockwise.activations.free_bytes", lambda: 1000)
    activations = Activations(CPU, place, tmp_path / "a")
    assert (activations.aside(800).place == "disk") == (place == "disk") and not caplog.messages
    aside = activations.aside(801)
    shelf = aside.shelf([torch.ones(3), torch.zeros(3)])
    assert aside.place == "disk" and len(list((tmp_path / "a").rglob("*.safetensors"))) == 2
    assert [float(x.sum()) for x in shelf] == [3, 0]
    assert len(caplog.messages) == (place != "disk")
    activations.close()
    assert not (tmp_path / "a").exists()


def test_without_a_folder_what_is_set_aside_stays_in_memory(monkeypatch):
    monkeypatch.setattr("qig.blockwise.activations.free_bytes", lambda: 0)
    assert Activations(CPU).aside(10**9).place == "host"


def test_a_call_is_put_away_with_all_its_arguments(activations):
    mask, turn = torch.ones(2, 2, dtype=torch.bool), (torch.ones(3), torch.zeros(3))
    call = Call(torch.ones(2, 3), {"mask": mask, "turn": turn, "n": 4, "none": None}).kept(activations)
    assert torch.equal(call.x, torch.ones(2, 3))
    assert torch.equal(call.kwargs["mask"], mask) and call.kwargs["n"] == 4 and call.kwargs["none"] is None
    assert all(torch.equal(a, b) for a, b in zip(call.kwargs["turn"], turn, strict=True))


def test_each_tensor_reaches_into_nested_containers():
    found = each_tensor(lambda x: x + 1, {"a": [torch.zeros(1), (torch.ones(1), "s")], "b": 2})
    assert found["b"] == 2 and found["a"][1][1] == "s"
    assert float(found["a"][0]) == 1 and float(found["a"][1][0]) == 2


def test_mapped_makes_items_anew_and_ends():
    made = []
    items = Mapped(lambda i: made.append(i) or torch.tensor(float(i)), 3)
    assert [float(x) for x in items] == [0, 1, 2] and float(items[1]) == 1 and made == [0, 1, 2, 1]
    with pytest.raises(IndexError):
        items[3]
