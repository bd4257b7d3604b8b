"""The errors a user can cause; each is shown as one message, without a traceback."""

from __future__ import annotations

from collections.abc import Iterable


class QigError(Exception):
    """Base of all errors whose message is meant for the user: what came, what was expected, the choices."""


class ConfigError(QigError, ValueError):
    """A configuration that cannot be run."""


class ModelError(QigError):
    """A checkpoint that is absent, incomplete, damaged, or of an architecture without a table row."""


class DataError(QigError):
    """Calibration or evaluation data that is absent, unreadable or empty."""


class StoreError(QigError):
    """An artefact that cannot be written, or whose content does not match its checksum."""


class EvaluationError(QigError):
    """A benchmark that could not be run, or whose answers cannot be trusted."""


class UnscoredError(EvaluationError):
    """A benchmark that gives no number for every sample, whatever the model that is asked."""


class NonFiniteError(QigError):
    """NaN or an infinity where a number was expected.

    Attributes:
        what: the quantity, such as ``token scores``.
        found: how many values of how many are NaN or infinite.
        block, site, sample: where it arose; ``None`` where it belongs to no single one.
    """

    def __init__(
        self, what: str, found: str, block: int | None = None, site: str | None = None, sample: str | None = None
    ) -> None:
        super().__init__(what, found, block, site, sample)  # all of them: it must travel between processes
        self.what, self.found, self.block, self.site, self.sample = what, found, block, site, sample

    def at(self, block: int | None = None, site: str | None = None, sample: str | None = None) -> NonFiniteError:
        """The same with a place; what is known already stays."""
        known = (self.block if self.block is not None else block, self.site or site, self.sample or sample)
        return NonFiniteError(self.what, self.found, *known)

    def __str__(self) -> str:
        places = [
            "" if self.block is None else f"block {self.block}",
            self.site or "",
            "" if self.sample is None else f"sample {self.sample}",
        ]
        where = ", ".join(filter(None, places))
        return (
            f"non-finite {self.what}{f' at {where}' if where else ''}: {self.found}; check the checkpoint and "
            "model.dtype (float16 overflows in some models; bfloat16 and float32 do not)"
        )


class JobsFailed(QigError):
    """A sweep of which some jobs have failed; the others are done."""


def choices(got: object, options, what: str) -> str:
    """One line that says what came and what there is: ``unknown method 'qgi'; choose from: awq, gptq, qig``."""
    options = sorted(str(option) for option in options)
    return f"unknown {what} {got!r}{meant(got, options)}; choose from: {', '.join(options)}"


def meant(got: object, options: Iterable[str]) -> str:
    """`` (did you mean 'qig'?)``, or nothing where no option is near."""
    import difflib

    spelt = {option.lower(): option for option in options}
    near = difflib.get_close_matches(str(got).lower(), spelt, n=1)
    return f" (did you mean {spelt[near[0]]!r}?)" if near else ""
