"""Commands in forked children: as a process of their own, but without importing torch and transformers anew."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import NoReturn

LIMIT = 300  # seconds after which a child counts as hanging


@dataclass
class Child:
    """A forked process; ``code``: its exit status, or minus a signal's number, once it has ended."""

    pid: int
    code: int | None = field(default=None, init=False)

    def running(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is None

    def wait(self, limit: float = LIMIT) -> int:
        """The exit status. Raises TimeoutError, and kills it, if that takes longer than ``limit`` seconds."""
        deadline = time.monotonic() + limit
        while self.running():
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"a command hung for {limit} s: {self.doing()}")
            time.sleep(0.01)
        return self.code

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.running():
            os.kill(self.pid, number)
        self.wait()

    def doing(self) -> str:
        """What is known of it."""
        return f"process {self.pid}"


def command(*words: str) -> Callable[[], None]:
    """``qig WORDS``."""

    def called() -> None:
        from qig.__main__ import main

        os.environ.pop("HYDRA_FULL_ERROR", None)
        sys.argv = ["qig", *words]
        main()

    return called


def run(
    function: Callable[[], object], cwd: Path, environment: Mapping[str, str] | None = None, limit: float = LIMIT
) -> CompletedProcess:
    """``function`` in a child, in the folder ``cwd``: its exit status, as a script's would be, and what it said."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "stdout", Path(folder) / "stderr"
        status = Child(start(function, cwd, *said, environment=environment)).wait(limit)
        return CompletedProcess(function, status, *(file.read_text() for file in said))


def start(
    function: Callable[[], object], cwd: Path, stdout: Path, stderr: Path, environment: Mapping[str, str] | None = None
) -> int:
    """The child's process number; ``environment`` is added to what is set."""
    sys.stdout.flush()
    sys.stderr.flush()
    if child := os.fork():
        return child
    _be(function, cwd, stdout, stderr, environment or {})


def _be(function, cwd: Path, stdout: Path, stderr: Path, environment: Mapping[str, str]) -> NoReturn:
    code = 1
    try:
        for number, file in ((1, stdout), (2, stderr)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        # Not closed with their objects: a child of this one makes its own of the same numbers.
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        atexit._clear()  # what is to be done at the parent's end
        os.chdir(cwd)
        os.environ.update(environment)
        function()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            atexit._run_exitfuncs()  # W&B has one, which may print
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
