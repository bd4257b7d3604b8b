"""What the commands beside ``qig`` say of a mistake: one line, and exit status 1."""

from __future__ import annotations

import sys
from collections.abc import Callable

from qig.errors import QigError
from qig.store.files import FOLDER_ERRORS


def told(program: str, work: Callable[[], int | None]) -> int:
    """The exit status of ``work``: what it returns (nothing: 0), or 1 after a line about what cannot be done.

    That is a mistake of the user's, or a folder that cannot be written.
    """
    try:
        return work() or 0
    except QigError as error:
        message = str(error)
    except OSError as error:
        if error.errno not in FOLDER_ERRORS:
            raise
        message = f"{error.filename or 'what it writes'} cannot be written: {error.strerror}"
    print(f"{program}: {message}", file=sys.stderr)
    return 1
