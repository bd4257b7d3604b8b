"""Commands in forked children: as a process of their own, but without importing torch and transformers anew."""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess
from typing import NoReturn


def command(*words: str) -> Callable[[], None]:
    """``qig WORDS``."""

    def called() -> None:
        from qig.__main__ import main

        sys.argv = ["qig", *words]
        main()

    return called


def run(function: Callable[[], object], cwd: Path, environment: Mapping[str, str] | None = None) -> CompletedProcess:
    """``function`` in a child, in the folder ``cwd``: its exit status, as a script's would be, and what it said."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "stdout", Path(folder) / "stderr"
        child = start(function, cwd, *said, environment=environment)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
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
