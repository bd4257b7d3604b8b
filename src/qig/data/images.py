"""Images of calibration samples: found inside their folder, decoded safely, padded to squares, shrunk."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from PIL import Image

from qig.data.samples import Picture
from qig.errors import DataError

MAX_PIXELS = 89_478_485  # at which Pillow warns of a decompression bomb; it holds whatever a library has told Pillow
MAX_RATIO = 200  # longer side to shorter one; Qwen2-VL's own bound, and nothing real is beyond it


def inside(folder: Path, name: str, follow_links: bool = False) -> Path:
    """The file ``name`` in ``folder``.

    Raises:
        DataError: the name is empty, absolute, or climbs out of the folder (it is not looked up then), or a symbolic
            link leads out of it and is not to be followed.
    """
    for flavour in (PurePosixPath(name), PureWindowsPath(name)):
        if not name or flavour.is_absolute() or flavour.drive or ".." in flavour.parts:
            raise DataError(f"image path {name!r} leaves its folder; expected a path relative to it, without '..'")
    file = folder / name
    if follow_links:
        return file
    try:
        real, root = file.resolve(), folder.resolve()
    except (OSError, ValueError, RuntimeError):  # a NUL byte, a loop of links: there is no such file
        return file
    if not any(real.is_relative_to(allowed) for allowed in (root, *_blobs(root))):
        advice = "the set's follow_links=true reads it"
        raise DataError(f"image path {name!r} leaves its folder by a symbolic link; {advice}")
    return file


def _blobs(folder: Path) -> list[Path]:
    """Where the files of a snapshot in the Hugging Face cache really are: links lead from one to the other."""
    return [path.parents[1] / "blobs" for path in (folder, *folder.parents) if path.parent.name == "snapshots"]


def decode(picture: Picture) -> Image.Image:
    """The picture in RGB with 8 bits a channel; of an animation the first frame.

    Raises:
        DataError: it is absent, no image, damaged, empty, so large that decoding it would exhaust the memory, of an
            absurd shape, or of a mode whose range of values is not known.
    """
    if isinstance(picture, Path) and not is_file(picture):
        raise DataError(f"image file {str(picture)!r} does not exist")
    name = repr(str(picture)) if isinstance(picture, Path) else "inside the sample"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if isinstance(picture, Image.Image):
                return _rgb(picture)
            with Image.open(BytesIO(picture) if isinstance(picture, bytes) else picture) as opened:
                return _rgb(opened)
    except DataError as error:
        raise DataError(f"image {name} {error}") from error
    except Exception as error:  # Pillow's decoders raise whatever they stumble over in a damaged file
        raise DataError(f"image {name} cannot be read: {type(error).__name__}: {error}") from error


def refuse_shape(image: Image.Image) -> None:
    """Raises DataError for an image without pixels, with too many, or far longer than wide; no pixel is decoded."""
    width, height = image.size
    if not width or not height:
        raise DataError(f"is empty ({width} by {height} pixels)")
    if width * height > MAX_PIXELS:
        raise DataError(f"has {width} by {height} pixels; expected at most {MAX_PIXELS:,}")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise DataError(f"has {width} by {height} pixels; expected sides of at most {MAX_RATIO} to 1")


def _rgb(image: Image.Image) -> Image.Image:
    refuse_shape(image)
    if image.mode.startswith("I;16"):  # Pillow would cut all values above 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise DataError(f"has Pillow's mode {image.mode}, whose range of values is not known; expected 8 or 16 bits")
    return image.convert("RGB")


def is_file(path: Path) -> bool:
    """Whether a regular file is there, whatever the name is."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, with a NUL byte or a lone surrogate
        return False


def pad_to_square(image: Image.Image, mean: Sequence[float]) -> Image.Image:
    """The image in the middle of a square of the colour ``mean`` (0 to 1 a channel), as LLaVA-1.5 pads it.

    Raises:
        DataError: the square would exhaust the memory.
    """
    if image.width == image.height:
        return image
    side = max(image.size)
    if side * side > MAX_PIXELS:
        raise DataError(f"an image of {image.width} by {image.height} pixels is too long to be padded to a square")
    square = Image.new("RGB", (side, side), tuple(int(channel * 255) for channel in mean))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def shrink(image: Image.Image, max_pixels: int) -> Image.Image:
    """The image with at most ``max_pixels`` pixels and, but for rounding to whole ones, its proportions."""
    if image.width * image.height <= max_pixels:
        return image
    factor = math.sqrt(max_pixels / (image.width * image.height))
    width = max(1, min(int(image.width * factor), max_pixels))
    height = max(1, min(int(image.height * factor), max_pixels // width))
    return image.resize((width, height), Image.Resampling.BICUBIC)
