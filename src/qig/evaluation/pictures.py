"""A picture as a protocol sends it to the processor."""

from __future__ import annotations

from PIL.Image import Image

from qig.data.images import refuse_shape

from .protocols import Protocol


def as_sent(picture, protocol: Protocol):
    """The picture (PIL, RGB where it is changed) after the protocol's compression and resizing; often as it is.

    Raises:
        DataError: it has no pixels, too many, or is far longer than wide.
    """
    if isinstance(picture, Image):
        refuse_shape(picture)
    if protocol.jpeg_quality is not None:
        from lmms_eval.models.model_utils.media_encoder import encode_image_to_data_url

        picture = encode_image_to_data_url(
            picture, image_format="JPEG", mime_type="image/jpeg", convert_rgb=True, quality=protocol.jpeg_quality
        )
    if protocol.fetch is not None:
        from qwen_vl_utils import fetch_image

        bounds = {"min_pixels": protocol.fetch.min_pixels, "max_pixels": protocol.fetch.max_pixels}
        given = {name: value for name, value in bounds.items() if value is not None}
        picture = fetch_image({"image": picture, **given}, image_patch_size=protocol.fetch.patch)
    return picture
