"""Manifests see every flipped bit that matters; disk trouble is known under any wrapping."""

from __future__ import annotations

import errno
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qig.store.files import MANIFEST, disk_trouble, find_damage, part, sha256, write_json, write_manifest, write_text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artefact")
    for block in ("000", "001"):
        (folder / block).mkdir()
        (folder / block / "weights").write_bytes(bytes(range(50)))
        write_manifest(folder / block)
    (folder / "record.json").write_text('{"value": 1}')
    write_manifest(folder)
    return folder


def test_covers_every_file_manifests_of_inner_folders_included(folder):
    expected = {"000/weights", "000/MANIFEST.json", "001/weights", "001/MANIFEST.json", "record.json"}
    assert set(json.loads((folder / MANIFEST).read_text())) == expected
    assert find_damage(folder) is None


@given(data=st.data())
def test_one_flipped_bit_of_any_file_is_found(folder, data):
    file = data.draw(st.sampled_from(sorted(f for f in folder.rglob("*") if f.is_file())))
    whole = file.read_bytes()
    place = data.draw(st.integers(0, 8 * len(whole) - 1))
    broken = bytearray(whole)
    broken[place // 8] ^= 1 << place % 8
    file.write_bytes(broken)
    try:
        # White space of the manifest is the only thing that may change: then it still says the same.
        harmless = file == folder / MANIFEST and _loads(broken) == json.loads(whole)
        assert (find_damage(folder) is None) == harmless
    finally:
        file.write_bytes(whole)


def _loads(content):
    try:
        return json.loads(content)
    except ValueError:
        return None


def test_two_names_made_one_by_a_flipped_bit(folder):
    manifest = folder / MANIFEST
    whole = manifest.read_text()
    manifest.write_text(whole.replace('"000/weights"', '"001/weights"'))
    try:
        assert "twice" in find_damage(folder)
    finally:
        manifest.write_text(whole)


@pytest.mark.parametrize("way", ["../beside", "inner/../../beside", "absolute"])
def test_a_manifest_that_vouches_for_what_is_elsewhere_is_damaged(tmp_path, way):
    """Also where the checksum is right."""
    beside = tmp_path / "beside"
    beside.write_text("another's")
    (tmp_path / "artefact" / "inner").mkdir(parents=True)
    name = str(beside) if way == "absolute" else way
    write_json(tmp_path / "artefact" / MANIFEST, {name: sha256(beside)})
    assert "which is elsewhere" in find_damage(tmp_path / "artefact")


def test_a_part_takes_the_place_of_the_one_before_and_of_what_was_left_unfinished(tmp_path):
    target = tmp_path / "blocks" / "000"
    for content in ("first", "second"):
        (tmp_path / "blocks" / "000.tmp").mkdir(parents=True)
        (tmp_path / "blocks" / "000.tmp" / "half").write_text("killed")
        with part(target) as folder:
            (folder / content).write_text(content)
        assert {file.name for file in target.iterdir()} == {content, MANIFEST} and find_damage(target) is None
    with pytest.raises(KeyError), part(target) as folder:
        (folder / "third").write_text("third")
        raise KeyError
    assert {file.name for file in target.iterdir()} == {"second", MANIFEST}


def while_handled(error: BaseException) -> BaseException:
    try:
        try:
            raise error
        except BaseException:
            raise KeyError("what was being written")  # noqa: B904
    except KeyError as outer:
        return outer


def wrapped(error: BaseException) -> BaseException:
    try:
        try:
            raise error
        except BaseException as inner:
            raise ValueError("unable to configure handler 'file'") from inner
    except ValueError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
        (wrapped(OSError(errno.EROFS, "Read-only file system")), errno.EROFS),
        (while_handled(OSError(errno.ENOSPC, "No space left on device")), errno.ENOSPC),
        (RuntimeError("I/O error: Disk quota exceeded (os error 122)"), errno.EDQUOT),
        (ConnectionError("the network is down"), None),
        (FileNotFoundError(errno.ENOENT, "No such file"), None),
        (RuntimeError("shape 28 is invalid"), None),
        (RuntimeError("No such file or directory (os error 2)"), None),
    ],
)
def test_disk_trouble(error, number):
    found = disk_trouble(error)
    assert (found.errno if found else None) == number


def test_json_is_the_old_one_until_it_is_the_new_one(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_json(file, [1])

    def full(_number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError):
        write_json(file, [2])
    assert json.loads(file.read_text()) == [1]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "comparison.md"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["comparison.md"]
