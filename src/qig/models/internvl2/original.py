"""The published ``config.json``: read key by key, and refused where the native classes have no equivalent."""

from __future__ import annotations

from pathlib import Path

from qig.errors import ModelError
from qig.models.files import read_json

TEXT_MODELS = ("InternLM2ForCausalLM", "Qwen2ForCausalLM")
NORMS = ("layer_norm", "rms_norm")
ROPE_SCALINGS = ("linear", "dynamic")
QK_NORM_EPSILON = 1e-6  # fixed in the native class


class Section:
    """One level of the configuration; a key that is asked for and absent is told by its full name."""

    def __init__(self, values: object, name: str):
        if not isinstance(values, dict):
            raise ModelError(f"{name} is {values!r}: expected a table of settings")
        self.values, self.name = values, name

    def __getitem__(self, key: str):
        if key not in self.values:
            raise ModelError(f"{self.name} lacks {key!r}, which InternVL2's config.json gives")
        return self.values[key]

    def get(self, key: str, default=None):
        return self.values.get(key, default)

    def check_sizes(self, *keys: str) -> None:
        """Raises ModelError unless all ``keys`` are positive whole numbers."""
        for key in keys:
            if not isinstance(self[key], int) or self[key] < 1:
                raise ModelError(f"{self.name}: {key} is {self[key]!r}: expected a positive whole number")

    def require(self, key: str, value: object, supported: object, why: str) -> None:
        """Raises ModelError unless ``value`` (the setting ``key``) is among ``supported``."""
        if value not in supported:
            listed = ", ".join(repr(choice) for choice in supported)
            raise ModelError(f"{self.name}: {key} is {value!r}; supported: {listed} ({why})")


class Original:
    """A checked configuration: ``top`` level, ``vision`` tower and ``text`` model."""

    def __init__(self, directory: Path):
        file = directory / "config.json"
        self.top = Section(read_json(file), str(file))
        self.vision = Section(self.top["vision_config"], f"{file} vision_config")
        self.text = Section(self.top["llm_config"], f"{file} llm_config")
        self._check_image_path()
        self._check_text_model()

    @property
    def is_internlm2(self) -> bool:
        return self.text_class == "InternLM2ForCausalLM"

    @property
    def text_class(self) -> str:
        classes = self.text["architectures"]
        return classes[0] if isinstance(classes, list) and len(classes) == 1 else str(classes)

    @property
    def rope_scaling(self) -> Section | None:
        scaling = self.text.get("rope_scaling")
        return None if scaling is None else Section(scaling, f"{self.text.name} rope_scaling")

    @property
    def tile_size(self) -> int:
        """Edge of a tile in pixels."""
        forced = self.top.get("force_image_size")
        return self.vision["image_size"] if forced is None else forced

    @property
    def tokens_per_tile(self) -> int:
        side = self.tile_size // self.vision["patch_size"]
        return int(side * self.top["downsample_ratio"]) ** 2

    @property
    def tiles(self) -> tuple[int, int]:
        """The least and the greatest number of tiles an image is cut into, its thumbnail not counted."""
        if not self.top["dynamic_image_size"]:
            return 1, 1
        return self.top["min_dynamic_patch"], self.top["max_dynamic_patch"]

    def _check_image_path(self) -> None:
        top, vision = self.top, self.vision
        vision.check_sizes("hidden_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
        if top.get("force_image_size") is not None:
            top.check_sizes("force_image_size")
        # Absent keys mean what the published configuration classes default to.
        top.require("ps_version", top.get("ps_version", "v1"), ("v2",), "v1 transposes the image after pixel shuffle")
        top.require("pad2square", bool(top.get("pad2square", False)), (False,), "no padding to squares")
        for key in ("use_backbone_lora", "use_llm_lora"):
            top.require(key, top.get(key, 0), (0,), "adapters must be merged into the weights first")
        vision.require("norm_type", vision.get("norm_type", "rms_norm"), NORMS, "norms of the vision tower")
        if vision["qk_normalization"]:
            reason = "the native class fixes it where queries and keys are normalised"
            vision.require("layer_norm_eps", vision["layer_norm_eps"], (QK_NORM_EPSILON,), reason)
        layers, layer = vision["num_hidden_layers"], top.get("select_layer", -1)
        if not isinstance(layer, int) or not -layers <= layer <= -1:
            raise ModelError(f"{top.name}: select_layer is {layer!r}; supported: -1 (the last layer) to -{layers}")
        ratio, side = top["downsample_ratio"], self.tile_size // vision["patch_size"]
        possible = isinstance(ratio, int | float) and 0 < ratio <= 1
        if not possible or 1 / ratio != int(1 / ratio) or side % int(1 / ratio):
            raise ModelError(
                f"{top.name}: downsample_ratio is {ratio!r} at {side} by {side} patches; supported: "
                "1/n where n divides the number of patches in a row"
            )
        if top["dynamic_image_size"]:
            top.check_sizes("min_dynamic_patch", "max_dynamic_patch")
        least, most = self.tiles
        if least > most:
            raise ModelError(
                f"{top.name}: min_dynamic_patch is {least!r} and max_dynamic_patch {most!r}: expected min <= max"
            )
        if most > 1:
            thumbnail = top.get("use_thumbnail", False)
            top.require("use_thumbnail", thumbnail, (True,), "the native processor always adds one")

    def _check_text_model(self) -> None:
        text = self.text
        text.check_sizes("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
        if (
            text["hidden_size"] % text["num_attention_heads"]
            or text["num_attention_heads"] % text["num_key_value_heads"]
        ):
            raise ModelError(
                f"{text.name}: num_key_value_heads ({text['num_key_value_heads']}) must divide num_attention_heads "
                f"({text['num_attention_heads']}), and these hidden_size ({text['hidden_size']})"
            )
        text.require("architectures", self.text_class, TEXT_MODELS, "text models that can be converted")
        text.require("use_sliding_window", bool(text.get("use_sliding_window")), (False,), "full attention only")
        positions = text.get("rope_pos_id_version", "default")
        text.require("rope_pos_id_version", positions, ("default",), "positions count tokens")
        if self.rope_scaling is not None:
            kind = self.rope_scaling.get("rope_type", self.rope_scaling.get("type"))
            self.rope_scaling.require("type", kind, ROPE_SCALINGS, "or null")
