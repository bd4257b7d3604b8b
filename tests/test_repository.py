"""What a record says of the code: commit, changes, their hash, and their text as far as it is kept."""

from __future__ import annotations

import hashlib
import os
import subprocess

import pytest

from qig import repository as module
from qig.repository import MOST, Repository, repository


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone with the package's file in it, committed."""
    root = tmp_path / "clone"
    file = root / "src" / "qig" / "repository.py"
    file.parent.mkdir(parents=True)
    file.write_text("one\n")
    (root / "README.md").write_text("about\n")
    author = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"]):
        subprocess.run(["git", "-C", root, *command], check=True, env={**os.environ, **author})
    monkeypatch.setattr(module, "__file__", str(file))
    return root


def ask(clone, *command) -> bytes:
    return subprocess.run(["git", "-C", clone, *command], check=True, capture_output=True).stdout


def test_as_committed(clone, tmp_path):
    (clone / "README.md").write_text("changed\n")  # not code
    found = repository()
    assert found.record() == {"commit": ask(clone, "rev-parse", "HEAD").decode().strip(), "dirty": False}
    found.write_diff(tmp_path / "changes.patch")
    assert not (tmp_path / "changes.patch").exists()


def test_changes_can_be_made_again(clone, tmp_path):
    (clone / "src" / "qig" / "repository.py").write_text("two\n")
    (clone / "conf").mkdir()
    (clone / "conf" / "new.yaml").write_text("a: 1\n")
    found = repository()
    record = found.record()
    assert record["dirty"] and record["untracked"] == ["conf/new.yaml"]
    found.write_diff(tmp_path / "changes.patch")
    kept = (tmp_path / "changes.patch").read_bytes()
    assert record["diff"] == {"sha256": hashlib.sha256(kept).hexdigest(), "bytes": len(kept)}
    ask(clone, "checkout", "-q", "--", "src")
    ask(clone, "apply", str(tmp_path / "changes.patch"))
    assert (clone / "src" / "qig" / "repository.py").read_text() == "two\n"


def test_a_long_difference_is_cut_and_hashed_whole(tmp_path):
    diff = os.urandom(MOST + 10)
    found = Repository("c", diff, ())
    found.write_diff(tmp_path / "changes.patch")
    kept = (tmp_path / "changes.patch").read_bytes()
    assert kept[:MOST] == diff[:MOST] and kept.endswith(f"cut at {MOST} of {MOST + 10} bytes]\n".encode())
    assert found.record()["diff"]["sha256"] == hashlib.sha256(diff).hexdigest()


def test_outside_of_a_clone_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "__file__", str(tmp_path / "site-packages" / "qig" / "repository.py"))
    (tmp_path / "site-packages" / "qig").mkdir(parents=True)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert repository() is None
