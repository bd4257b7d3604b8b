"""The store: complete or not there, verified, shared between processes, and clear about what it cannot do."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from qig.errors import DataError, StoreError
from qig.store import Store
from qig.store.owner import Owner


def write(text="content"):
    def build(folder):
        (folder / "inner").mkdir()
        (folder / "inner" / "file.txt").write_text(text)

    return build


def refuse(_folder):
    raise AssertionError("built again")


def names(store: Store, kind="runs") -> set[str]:
    """What lies in the kind's folder, and can be found."""
    folder = store.root / kind
    return {p.name for p in folder.iterdir()} if folder.is_dir() else set()


@pytest.mark.parametrize(("started", "left"), [(1, False), (None, True)])
def test_a_maker_that_was_killed_behind_its_last_step_leaves_no_lock(tmp_path, started, left):
    """The artefact has its name by then: nobody comes to wait for the lock. One that lives gives it up itself."""
    store, me = Store(tmp_path), Owner.me()
    folder, _ = store.make("runs", "k", write())
    lock = tmp_path / "locks" / "runs-k"
    lock.mkdir(exist_ok=True)
    owner = asdict(me if started is None else replace(me, started=started))
    (lock / "claim.json").write_text(json.dumps(owner))
    assert store.make("runs", "k", refuse) == (folder, True)
    assert lock.exists() == left


def test_made_once_and_found_again(tmp_path):
    store = Store(tmp_path)
    assert store.find("runs", "k") is None
    folder, cached = store.make("runs", "k", write())
    assert not cached and (folder / "inner/file.txt").read_text() == "content"
    assert store.find("runs", "k") == folder == store.path("runs", "k")
    assert Store(tmp_path).make("runs", "k", refuse) == (folder, True)
    assert names(store) == {"k"}


def test_keys_and_kinds_are_apart(tmp_path):
    store = Store(tmp_path)
    store.make("runs", "k", write("one"))
    store.make("quantized", "k", write("two"))
    assert (store.path("runs", "k") / "inner/file.txt").read_text() == "one"
    assert store.find("runs", "other") is None


@pytest.mark.parametrize("error", [DataError("bad"), RuntimeError("bad"), KeyboardInterrupt(), SystemExit(1)])
def test_build_that_raises_leaves_nothing(tmp_path, error):
    store = Store(tmp_path)

    def build(folder):
        write()(folder)
        raise error

    with pytest.raises(type(error)):
        store.make("runs", "k", build)
    assert store.find("runs", "k") is None and names(store) == set()
    assert store.make("runs", "k", write())[1] is False


def test_resumable_build_finds_what_the_interrupted_one_left(tmp_path):
    store = Store(tmp_path)

    def interrupted(folder):
        (folder / "block-0").write_text("done")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.make("quantized", "k", interrupted, resumable=True)
    assert store.find("quantized", "k") is None

    def resumed(folder):
        assert (folder / "block-0").read_text() == "done"
        (folder / "block-1").write_text("done")

    folder, cached = store.make("quantized", "k", resumed, resumable=True)
    assert not cached and {p.name for p in folder.iterdir()} == {"block-0", "block-1", "MANIFEST.json"}
    assert names(store, "quantized") == {"k"}


def test_build_that_is_not_resumable_starts_from_an_empty_folder(tmp_path):
    store = Store(tmp_path)
    (store.root / "runs" / ".partial-k.dead").mkdir(parents=True)
    (store.root / "runs" / ".partial-k.dead" / "old").write_text("killed")
    folder, _ = store.make("runs", "k", write())
    assert not (folder / "old").exists()


@pytest.mark.parametrize("times", [(1, 2), (2, 1)])
def test_of_what_several_owners_left_the_latest_is_gone_on_from_and_other_keys_are_let_be(tmp_path, times):
    kind = tmp_path / "quantized"
    for name, seconds in zip((".partial-k.a", ".partial-k.b"), times, strict=True):
        (kind / name).mkdir(parents=True)
        (kind / name / "block-0").write_text(str(seconds))
        os.utime(kind / name, (seconds, seconds))
    (kind / ".partial-k2.c").mkdir()
    seen = []

    def resumed(folder):
        seen.append(((folder / "block-0").read_text(), names(Store(tmp_path), "quantized") - {folder.name}))

    Store(tmp_path).make("quantized", "k", resumed, resumable=True)
    assert seen == [("2", {".partial-k2.c"})] and names(Store(tmp_path), "quantized") == {"k", ".partial-k2.c"}


DAMAGES = ["change", "truncate", "delete", "manifest gone", "manifest broken", "manifest list"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_artefact_is_set_aside_and_made_again(tmp_path, damage, caplog):
    store = Store(tmp_path)
    folder, _ = store.make("runs", "k", write())
    file, manifest = folder / "inner/file.txt", folder / "MANIFEST.json"
    {
        "change": lambda: file.write_text("c0ntent"),
        "truncate": lambda: file.write_text(""),
        "delete": file.unlink,
        "manifest gone": manifest.unlink,
        "manifest broken": lambda: manifest.write_text("{"),
        "manifest list": lambda: manifest.write_text("[]"),
    }[damage]()
    assert store.find("runs", "k") is None
    assert "runs k is damaged" in caplog.text
    assert store.make("runs", "k", write())[1] is False
    assert store.find("runs", "k") == folder
    assert names(store) == {"k", ".damaged-k"}


def test_manifest_covers_every_file(tmp_path):
    folder, _ = Store(tmp_path).make("runs", "k", write())
    assert list(json.loads((folder / "MANIFEST.json").read_text())) == ["inner/file.txt"]


def test_a_finished_artefact_is_set_aside_for_a_reason_alone(tmp_path):
    store, asked = Store(tmp_path), []

    def reason(said):
        return lambda: asked.append(store.holder("runs", "k") is not None) or said

    store.set_aside("runs", "k", reason("of no use"))
    assert asked == []  # there is none
    store.make("runs", "k", write())
    store.set_aside("runs", "k", reason(None))
    assert store.find("runs", "k") and names(store) == {"k"}
    store.set_aside("runs", "k", reason("of no use"))
    assert store.find("runs", "k") is None and names(store) == {".damaged-k"}
    assert asked == [True, True] and store.holder("runs", "k") is None


def _make_slowly(root: str, log: str, barrier) -> None:
    def build(folder):
        with open(log, "a") as stream:
            stream.write(f"{os.getpid()}\n")
        time.sleep(0.3)
        write()(folder)

    barrier.wait()
    folder, _ = Store(root).make("runs", "k", build)
    assert (folder / "inner/file.txt").read_text() == "content"


def test_two_processes_make_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    arguments = (str(tmp_path / "store"), str(tmp_path / "log"), barrier)
    workers = [context.Process(target=_make_slowly, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len((tmp_path / "log").read_text().split()) == 1


def test_lock_is_free_after_success_and_after_failure(tmp_path):
    """Also where nothing collects garbage: the lock is released, not left to the object's end."""
    store = Store(tmp_path)
    gc.disable()
    try:
        kept = []
        for build in (refuse, write()):
            try:
                store.make("runs", "k", build)
            except AssertionError as error:
                kept.append(error)  # its traceback keeps the frames, and what they refer to
            assert store.holder("runs", "k") is None
    finally:
        gc.enable()


def test_stages_made_inside_another_ones_build(tmp_path):
    store = Store(tmp_path)

    def outer(folder):
        inner, _ = store.make("quantized", "q", write("inner"))
        (folder / "seen").write_text((inner / "inner/file.txt").read_text())

    folder, _ = store.make("runs", "k", outer)
    assert (folder / "seen").read_text() == "inner" and store.find("quantized", "q")


def test_full_disk_is_a_store_error(tmp_path):
    def build(_folder):
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match=r"runs k could not be written under .*No space left"):
        Store(tmp_path).make("runs", "k", build)
    assert names(Store(tmp_path)) == set()


def test_trouble_of_a_build_is_not_blamed_on_the_disk(tmp_path):
    def build(_folder):
        raise ConnectionError("the network is down")

    with pytest.raises(ConnectionError):
        Store(tmp_path).make("runs", "k", build)
    assert names(Store(tmp_path)) == set()


def test_root_that_is_a_file(tmp_path):
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match=r"store .*store cannot be created"):
        Store(tmp_path / "store")


def test_kind_that_cannot_be_written(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "runs").write_text("a file where a folder must be")
    with pytest.raises(StoreError, match="runs k could not be written"):
        store.make("runs", "k", write())


def test_lock_that_cannot_be_taken(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "runs-k").write_text("a file where a lock must be")
    with pytest.raises(StoreError, match="runs k could not be written"):
        store.make("runs", "k", write())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_root(tmp_path):
    store = Store(tmp_path / "store")
    store.make("runs", "there", write())
    for folder in [store.root, *(p for p in store.root.rglob("*") if p.is_dir())]:
        folder.chmod(0o555)
    try:
        assert Store(store.root).make("runs", "there", refuse)[1]  # what is there can be used
        with pytest.raises(StoreError):
            Store(store.root).make("runs", "new", write())
    finally:
        for folder in [store.root, *(p for p in store.root.rglob("*") if p.is_dir())]:
            folder.chmod(0o755)


def test_home_directory_and_relative_roots(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert Store("~/a").root == tmp_path / "a" and Store("b").root == Path(tmp_path / "b")


def test_an_owner_that_only_seemed_dead_cannot_publish(tmp_path):
    """Its lock is taken over while it builds: what it goes on writing is refused, and the new owner's result stands."""
    store = Store(tmp_path)

    def slow(folder):
        (folder / "block-0").write_text("slow")
        next((tmp_path / "locks" / "runs-k").glob("*.json")).unlink()  # what a waiter does after a long silence
        store.make("runs", "k", fast, resumable=True)
        (folder / "block-1").write_text("slow")

    def fast(folder):
        assert (folder / "block-0").read_text() == "slow"
        (folder / "block-1").write_text("fast")

    with pytest.raises(StoreError, match="another one took over"):
        store.make("runs", "k", slow, resumable=True)
    folder = store.find("runs", "k")
    assert (folder / "block-1").read_text() == "fast" and names(store) == {"k"}


def test_damage_is_judged_again_under_the_lock(tmp_path, monkeypatch):
    """A process that saw damage which another one mended meanwhile must not set the mended one aside."""
    store = Store(tmp_path)
    store.make("runs", "k", write())
    monkeypatch.setattr(store, "find", lambda *_: None)
    assert store.make("runs", "k", refuse) == (store.path("runs", "k"), True)


def test_disk_trouble_that_a_library_hands_on_as_text(tmp_path):
    from safetensors import SafetensorError

    def build(_folder):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(StoreError, match=r"runs k could not be written under .*No space left on device"):
        Store(tmp_path).make("runs", "k", build)
    assert names(Store(tmp_path)) == set()
