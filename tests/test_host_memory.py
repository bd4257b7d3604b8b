"""What a process may still take: of the machine, of its job, of the group around that."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from qig import host_memory

Machine = namedtuple("Machine", "available")


@pytest.fixture
def groups(tmp_path, monkeypatch):
    monkeypatch.setattr(host_memory, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(host_memory, "MOUNT", tmp_path / "mount")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Machine(1000))
    return tmp_path


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / f"memory.{name}").write_text(f"{value}\n")


def test_a_machine_without_control_groups(groups):
    assert host_memory.free_bytes() == 1000


def test_the_limit_of_a_job_around_the_step_counts_and_cached_files_give_way(groups):
    (groups / "cgroup").write_text("0::/job_1/step_0\n")
    group(groups / "mount/job_1", max=500, current=400, stat="anon 150\nfile 250\nshmem 40\nfile_dirty 7")
    group(groups / "mount/job_1/step_0", max="max", current=400, stat="file 250")
    assert host_memory.free_bytes() == 500 - 400 + 250 - 40


def test_the_first_version_of_control_groups(groups):
    (groups / "cgroup").write_text("4:cpu,memory:/job\n3:cpuset:/other\n0::/\n")
    stat = "cache 1\ntotal_cache 35\ntotal_shmem 5"
    group(groups / "mount/memory/job", limit_in_bytes=600, usage_in_bytes=400, stat=stat)
    group(groups / "mount/memory", limit_in_bytes=2**63 - 4096, usage_in_bytes=400, stat="total_cache 30")
    group(groups / "mount/memory/other", limit_in_bytes=1, usage_in_bytes=0, stat="total_cache 0")
    assert host_memory.free_bytes() == 230


def test_a_container_sees_its_own_group_at_the_mount_and_never_less_than_nothing_is_free(groups):
    (groups / "cgroup").write_text("0::/docker/12ab\n")  # a path of the machine, which is not mounted here
    group(groups / "mount", max=100, current=140, stat="file 10")
    assert host_memory.free_bytes() == 0
