"""Images: inside their folder only, decoded safely, padded on the mean colour."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qig.data.encoding import images_of
from qig.data.images import decode, inside, pad_to_square, shrink
from qig.data.samples import CalibrationSample, ImagePolicy, Turn
from qig.errors import DataError


@pytest.mark.parametrize(
    "name",
    ["../a.png", "coco/../../a.png", "/etc/passwd", "..", "", "a/..", "C:\\a.png", "..\\a.png", "\\\\host\\a.png"],
)
def test_paths_that_leave_the_folder_are_refused(tmp_path, name):
    with pytest.raises(DataError, match="leaves its folder"):
        inside(tmp_path, name)


def test_paths_inside_the_folder(tmp_path):
    for name in ("a.png", "coco/train2017/a.png", "./a.png", "..a.png", "a..b/c.png"):
        assert inside(tmp_path, name) == tmp_path / name


@given(st.text(max_size=30))
def test_no_path_leaves_its_folder(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp()
    try:
        found = inside(folder, name)
    except DataError:
        return
    assert found.is_relative_to(folder) and ".." not in found.relative_to(folder).parts


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "1"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    image = Image.linear_gradient("L").convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    (tmp_path / "image").write_bytes(encoded(image, kind))
    for picture in (image, encoded(image, kind), tmp_path / "image"):
        assert decode(picture).mode == "RGB" and decode(picture).size == (256, 256)


def test_image_bombs_are_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for side in (11, 20):  # over the limit, where Pillow warns, and over twice the limit, where it raises
        with pytest.raises(DataError, match="DecompressionBomb"):
            decode(encoded(Image.new("RGB", (side, side))))
    assert decode(encoded(Image.new("RGB", (10, 10)))).size == (10, 10)


@given(data=st.binary(max_size=200), at=st.integers(0, 300))
def test_damaged_images_give_nothing_but_a_data_error(data, at):
    whole = encoded(Image.effect_noise((12, 12), 90))
    for broken in (data, whole[:at] + data, whole[: at % len(whole)]):
        try:
            decode(broken)
        except DataError as error:
            assert re.search("cannot be read|is empty|expected", str(error))


@pytest.mark.parametrize("name", ["absent.png", "folder", "nul\0.png", "x" * 300, "\ud800.png"])
def test_no_file(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="does not exist"):
        decode(tmp_path / name)


@given(width=st.integers(1, 40), height=st.integers(1, 40))
def test_padding_puts_the_image_in_the_middle_of_a_square(width, height):
    pixels = np.random.default_rng(width * 41 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    mean, side = (0.48145466, 0.4578275, 0.40821073), max(width, height)
    expected = np.empty((side, side, 3), dtype=np.uint8)
    expected[:] = (122, 116, 104)  # LLaVA's: 255 times CLIP's mean, rounded down
    top, left = (side - height) // 2, (side - width) // 2
    expected[top : top + height, left : left + width] = pixels
    assert np.array_equal(np.asarray(pad_to_square(Image.fromarray(pixels), mean)), expected)


def test_policy_of_a_sample(processor_of):
    wide = Image.new("RGB", (40, 10), (255, 0, 0))
    turns = ((Turn("user", (wide, "image")), Turn("assistant", ("red",))),)
    processor = processor_of("tiny_qwen2_vl")
    assert [image.size for image in images_of(CalibrationSample("s", turns), processor)] == [(40, 10)]
    (padded,) = images_of(CalibrationSample("s", turns, ImagePolicy(pad=True)), processor)
    assert padded.size == (40, 40)
    assert padded.getpixel((0, 0)) == (127, 127, 127)  # the processor's mean is 0.5
    (shrunk,) = images_of(CalibrationSample("s", turns, ImagePolicy(max_pixels=100)), processor)
    assert shrunk.size == (20, 5)
    (both,) = images_of(CalibrationSample("s", turns, ImagePolicy(pad=True, max_pixels=100)), processor)
    assert both.size == (10, 10)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 20_000))
def test_a_shrunk_picture_keeps_its_bound_and_its_proportions(width, height, most):
    image = Image.new("RGB", (width, height), (10, 20, 30))
    small = shrink(image, most)
    if width * height <= most:
        assert small is image
        return
    assert small.width * small.height <= most
    assert small.width <= width
    assert small.height <= height
    assert small.getpixel((0, 0)) == (10, 20, 30)
    factor = (most / (width * height)) ** 0.5
    if min(width, height) * factor >= 1:
        assert width * factor - 1.001 < small.width < width * factor + 0.001
        assert height * factor - 1.001 < small.height < height * factor + 0.001


def test_shrinking_averages_what_lies_under_a_pixel():
    stripes = Image.fromarray(np.tile(np.array([0, 255], dtype=np.uint8)[None, :, None], (64, 32, 3)))
    within = np.asarray(shrink(stripes, 64))[1:-1, 1:-1]  # at the edges the filter is cut off
    assert within.shape == (6, 6, 3)
    assert abs(within - 127.5).max() <= 1


def link(path, target):
    path.symlink_to(target)
    return path


def test_links_that_leave_the_folder_are_refused(tmp_path):
    folder, outside = tmp_path / "images", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "secret.png").write_bytes(encoded(Image.new("RGB", (4, 4))))
    (folder / "real.png").write_bytes(encoded(Image.new("RGB", (4, 4))))
    link(folder / "file.png", outside / "secret.png")
    link(folder / "dir", outside)
    link(folder / "loop", folder / "loop")
    link(folder / "within.png", folder / "real.png")
    for name in ("file.png", "dir/secret.png", "dir/absent.png"):
        with pytest.raises(DataError, match=f"image path '{name}' leaves its folder by a symbolic link"):
            inside(folder, name)
    assert decode(inside(folder, "dir/secret.png", follow_links=True)).size == (4, 4)
    with pytest.raises(DataError, match=r"without '\.\.'"):
        inside(folder, "../outside/secret.png", follow_links=True)
    link(tmp_path / "alias", folder)  # the folder itself may be a link
    assert decode(inside(tmp_path / "alias", "within.png")).size == (4, 4)
    with pytest.raises(DataError, match="does not exist"):
        decode(inside(folder, "loop"))


def test_links_of_the_hub_cache_are_followed(tmp_path):
    snapshot, blobs = tmp_path / "datasets--a--b" / "snapshots" / "0123", tmp_path / "datasets--a--b" / "blobs"
    (snapshot / "images").mkdir(parents=True)
    blobs.mkdir()
    (blobs / "feed").write_bytes(encoded(Image.new("RGB", (4, 4))))
    (tmp_path / "other.png").write_bytes(b"")
    link(snapshot / "images" / "a.png", blobs / "feed")
    link(snapshot / "images" / "b.png", tmp_path / "other.png")
    assert decode(inside(snapshot / "images", "a.png")).size == (4, 4)
    with pytest.raises(DataError, match="symbolic link"):
        inside(snapshot / "images", "b.png")


def test_size_is_bounded_whatever_a_library_has_told_pillow(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr("qig.data.images.MAX_PIXELS", 100)
    with pytest.raises(DataError, match="has 11 by 10 pixels; expected at most 100"):
        decode(encoded(Image.new("RGB", (11, 10))))
    with pytest.raises(DataError, match="too long to be padded"):
        pad_to_square(Image.new("RGB", (11, 1)), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (Image.new("RGB", (0, 5)), r"is empty \(0 by 5 pixels\)"),
        (Image.new("RGB", (201, 1)), "has 201 by 1 pixels; expected sides of at most 200 to 1"),
        (Image.new("RGB", (3, 1000)), "has 3 by 1000 pixels; expected sides of at most"),
        (Image.new("I", (3, 3)), "mode I, whose range"),
        (Image.new("F", (3, 3)), "mode F, whose range"),
    ],
)
def test_shapes_and_modes_that_are_refused(image, said):
    with pytest.raises(DataError, match=said):
        decode(image)


def test_sixteen_bits_become_eight():
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    for kind in ("PNG", "TIFF"):
        found = np.asarray(decode(encoded(Image.fromarray(values), kind)))
        assert np.array_equal(found, np.repeat((values // 256).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    buffer = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], **options)
    assert decode(buffer.getvalue()).getpixel((4, 4)) == (255, 0, 0)
