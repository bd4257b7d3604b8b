"""What nobody needs goes, and nothing else; what is at work stays."""

import json
import os
import time
from dataclasses import asdict

import pytest

from qig.runs.prune import waste
from qig.store.locks import Lock
from qig.store.owner import Owner


@pytest.fixture
def littered(store, seal):
    store.run("aaa")
    store.run("bbb")
    seal(store)
    root = store.root
    (root / "runs" / "bbb" / "record.json").unlink()
    for file in (root / "runs" / "bbb").iterdir():
        file.unlink()
    (root / "runs" / "bbb").rmdir()  # its stages are nobody's now
    for name in ("quantized/.partial-ccc.0123", "evaluation/.damaged-ddd"):
        (root / name).mkdir(parents=True)
        (root / name / "file").write_text("x" * 100)
    lock = root / "locks" / "runs-eee"
    lock.mkdir(parents=True)
    gone = {"host": "elsewhere", "pid": 1, "start": 1, "space": "none"}
    (lock / "f00.json").write_text(json.dumps(gone))
    long_ago = time.time() - 86400
    os.utime(lock / "f00.json", (long_ago, long_ago))
    return root


def test_gradients_that_a_run_refers_to_stay(store, seal):
    """Methods share them, and they take a backward pass of the whole model."""
    store.run("aaa", stages={"calibration": None, "gradients": "gaaa", "quantized": "qaaa", "evaluation": "eaaa"})
    seal(store)
    for name in ("gaaa", "gbbb"):
        (store.root / "gradients" / name).mkdir(parents=True)
        (store.root / "gradients" / name / "file").write_text("x")
    assert [one.folder for one in waste(store.root)] == [store.root / "gradients" / "gbbb"]


STAGES = ["quantized/qbbb", "evaluation/ebbb"]
WASTE = [*STAGES, "quantized/.partial-ccc.0123", "evaluation/.damaged-ddd", "locks/runs-eee"]


def test_it_says_what_would_go_and_removes_nothing(littered, ask):
    before = sorted(littered.rglob("*"))
    status, told = ask("prune")
    assert status == 0 and "5 folders" in told and "would be removed" in told
    assert all(f"  {name}  (" in told for name in WASTE)
    assert sorted(littered.rglob("*")) == before


def test_with_yes_it_goes_and_the_rest_stays(littered, ask):
    kept = {littered / name for name in ("runs/aaa", "quantized/qaaa", "evaluation/eaaa")}
    assert ask("prune", "--yes")[0] == 0
    assert not any((littered / name).exists() for name in WASTE)
    assert {path for path in littered.glob("*/*") if path.parent.name != "locks"} == kept
    assert ask("verify")[0] == 0
    assert ask("prune")[1].startswith("0 folders")


def test_partial_work_can_be_kept(littered, ask):
    ask("prune", "--yes", "--keep-partial")
    assert (littered / "quantized/.partial-ccc.0123").is_dir() and not (littered / "quantized/qbbb").exists()


def test_while_somebody_is_at_work_stages_and_his_partial_work_stay(littered, ask):
    with Lock(littered / "locks", "quantized-ccc"):
        status, told = ask("prune", "--yes")
    assert status == 0 and "qbbb" not in told and ".partial-ccc" not in told
    assert (littered / "quantized/qbbb").is_dir() and (littered / "quantized/.partial-ccc.0123").is_dir()
    assert not (littered / "evaluation/.damaged-ddd").exists()


def test_a_process_that_runs_here_is_at_work_however_old_its_sign_of_life(littered):
    """It may be stopped, or the clock may have been set."""
    lock = littered / "locks" / "quantized-ccc"
    lock.mkdir()
    (lock / "f01.json").write_text(json.dumps(asdict(Owner.me())))
    os.utime(lock / "f01.json", (1e9, 1e9))
    found = {one.folder.name for one in waste(littered)}
    assert "runs-eee" in found and not found & {"quantized-ccc", ".partial-ccc.0123"}


def test_records_that_cannot_be_read_may_refer_to_anything(littered, ask):
    (littered / "runs" / "aaa" / "record.json").write_text("{")
    status, told = ask("prune", "--yes")
    assert status == 1 and "1 run records cannot be read" in told
    assert (littered / "quantized/qbbb").is_dir()


def test_a_stage_that_a_run_has_come_to_need_meanwhile_stays(littered, ask, monkeypatch):
    """Somebody ends, or begins, between what is listed and what is removed."""
    found = {one.folder.name: one for one in waste(littered)}
    (littered / "runs" / "bbb").mkdir()
    assert found["qbbb"].remove(littered) is False and (littered / "quantized/qbbb").is_dir()
    (littered / "runs" / "bbb").rmdir()
    found = {one.folder.name: one for one in waste(littered)}
    with Lock(littered / "locks", "runs-fff"):
        assert found["qbbb"].remove(littered) is False
        monkeypatch.setattr("qig.runs.prune.waste", lambda store: [found["qbbb"], found[".damaged-ddd"]])
        told = ask("prune", "--yes")[1]
        assert "somebody has begun to work here, it stays" in told and "1 folders" in told
    assert found["qbbb"].remove(littered) is True and not (littered / "quantized/qbbb").exists()
    assert found["qbbb"].remove(littered) is False  # gone already


def test_who_ends_while_runs_are_read_is_counted_as_at_work(littered, monkeypatch):
    order = []
    monkeypatch.setattr("qig.runs.prune._live", lambda store: order.append("live") or set())
    monkeypatch.setattr("qig.runs.prune.all_runs", lambda store: order.append("runs") or ([], []))
    waste(littered)
    assert order[:2] == ["live", "runs"]


def test_answers_that_are_part_of_a_runs_stay(littered, ask):
    """Runs that ask one task more use them."""
    (littered / "evaluation" / "part").mkdir()
    (littered / "evaluation" / "part" / "samples.jsonl").write_text("{}")
    assert "evaluation/part" in ask("prune")[1]
    file = littered / "runs" / "aaa" / "record.json"
    record = json.loads(file.read_text())
    record["stages"]["parts"] = ["part"]
    file.write_text(json.dumps(record))
    assert "evaluation/part" not in ask("prune")[1]
