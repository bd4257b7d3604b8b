"""Images of calibration samples: found inside their folder, decoded safely, padded to squares."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath

from PIL import Image

from qig.data.samples import Picture
from qig.errors import DataError


def inside(folder: Path, name: str) -> Path:
    """The file ``name`` in ``folder``.

    Raises:
        DataError: the name is empty, absolute, or climbs out of the folder; it is not looked up then.
    """
    for flavour in (PurePosixPath(name), PureWindowsPath(name)):
        if not name or flavour.is_absolute() or flavour.drive or ".." in flavour.parts:
            raise DataError(f"image path {name!r} leaves its folder; expected a path relative to it, without '..'")
    return folder / name


def decode(picture: Picture) -> Image.Image:
    """The picture in RGB.

    Raises:
        DataError: it is absent, no image, damaged, or so large that decoding it would exhaust the memory.
    """
    if isinstance(picture, Path) and not _is_file(picture):
        raise DataError(f"image file {str(picture)!r} does not exist")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if not isinstance(picture, Image.Image):
                with Image.open(BytesIO(picture) if isinstance(picture, bytes) else picture) as opened:
                    return opened.convert("RGB")
            return picture.convert("RGB")
    except Exception as error:  # Pillow's decoders raise whatever they stumble over in a damaged file
        name = repr(str(picture)) if isinstance(picture, Path) else "inside the sample"
        raise DataError(f"image {name} cannot be read: {type(error).__name__}: {error}") from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, with a NUL byte or a lone surrogate
        return False


def pad_to_square(image: Image.Image, mean: Sequence[float]) -> Image.Image:
    """The image in the middle of a square of the colour ``mean`` (0 to 1 a channel), as LLaVA-1.5 pads it."""
    if image.width == image.height:
        return image
    side = max(image.size)
    square = Image.new("RGB", (side, side), tuple(int(channel * 255) for channel in mean))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square
