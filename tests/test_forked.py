"""The helper that the tests of commands go by ends as a process would, and ends what hangs."""

import os
import sys
import time

import pytest

import forked


@pytest.mark.parametrize(
    ("function", "status", "said", "told"),
    [
        (lambda: print("fine"), 0, "fine\n", ""),
        (lambda: sys.exit(), 0, "", ""),
        (lambda: sys.exit(3), 3, "", ""),
        (lambda: sys.exit("no luck"), 1, "", "no luck\n"),
        (lambda: os.kill(os.getpid(), 9), -9, "", ""),
    ],
)
def test_ends_like_a_script(tmp_path, function, status, said, told):
    done = forked.run(function, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (status, said, told)


def test_what_hangs_is_killed(tmp_path):
    def hang():
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(600)

    with pytest.raises(TimeoutError, match=r"a command hung for 0\.5 s"):
        forked.run(hang, tmp_path, limit=0.5)
    if (tmp_path / "pid").exists():
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)
