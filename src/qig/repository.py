"""The state of the clone that the package runs from: commit, and what differs from it."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qig.secrets import masked

CODE = ("src", "conf", "experiments", "pyproject.toml", "requirements.lock")
"""What decides a result; a changed README does not make a run another one."""
MOST = 256 * 1024
"""Bytes of a difference that are kept; its hash is that of the whole."""


@dataclass(frozen=True)
class Repository:
    """``diff``: what differs from the commit in files that git follows; ``untracked``: files of code it does not."""

    commit: str
    diff: bytes
    untracked: tuple[str, ...]

    @property
    def dirty(self) -> bool:
        return bool(self.diff or self.untracked)

    def record(self) -> dict[str, Any]:
        """What a run record says of it: the commit, whether there are changes, and of what size and hash."""
        found: dict[str, Any] = {"commit": self.commit, "dirty": self.dirty}
        if self.dirty:
            found["diff"] = {"sha256": hashlib.sha256(self.diff).hexdigest(), "bytes": len(self.diff)}
            found["untracked"] = list(self.untracked)
        return found

    def write_diff(self, file: Path) -> None:
        """The difference as text that ``git apply`` takes, secrets masked, cut at ``MOST`` bytes; no file if none."""
        if self.diff:
            cut = b"" if len(self.diff) <= MOST else f"\n[cut at {MOST} of {len(self.diff)} bytes]\n".encode()
            text = masked(self.diff[:MOST].decode(errors="surrogateescape"))
            file.write_bytes(text.encode(errors="surrogateescape") + cut)


def repository() -> Repository | None:
    """The state of the clone; ``None`` outside of one, and where there is no git."""
    here = Path(__file__).resolve().parents[2]

    def ask(*arguments: str) -> bytes:
        return subprocess.run(["git", "-C", here, *arguments], capture_output=True, check=True).stdout

    try:
        ask("ls-files", "--error-unmatch", str(Path(__file__)))
        untracked = ask("ls-files", "--others", "--exclude-standard", "--", *CODE).decode(errors="replace")
        return Repository(
            ask("rev-parse", "HEAD").decode().strip(),
            ask("diff", "HEAD", "--no-color", "--no-ext-diff", "--", *CODE),
            tuple(untracked.splitlines()),
        )
    except (OSError, subprocess.CalledProcessError):
        return None
