"""The errors a user can cause; each is shown as one message, without a traceback."""


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


def choices(got: object, options, what: str) -> str:
    """One line that says what came and what there is: ``unknown method 'qgi'; choose from: awq, gptq, qig``."""
    import difflib

    options = sorted(str(option) for option in options)
    near = difflib.get_close_matches(str(got), options, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {what} {got!r}{hint}; choose from: {', '.join(options)}"
