"""What the files of a run must look like before anything reads them: records, evaluated samples, what jobs leave.

Only what is read is described; more may be there. Texts that name files hold no separators.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from qig.errors import StoreError

STRICT = ConfigDict(strict=True)
DEEPEST = 50  # what reads a record goes down into it
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
Method = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+ -]{0,128}$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Numbers = dict[str, FiniteFloat | None]


class Outliers(TypedDict):
    sigma: NotRequired[FiniteFloat | None]


class Model(TypedDict):
    name: str
    outliers: NotRequired[Outliers | None]


class Named(TypedDict):
    name: str


class Config(TypedDict):
    model: Model
    quant: Named


class Calibration(TypedDict):
    samples: NotRequired[list[str]]
    skipped: NotRequired[dict[str, str]]
    sha256: NotRequired[str | None]


class Stages(TypedDict):
    calibration: NotRequired[Calibration | None]
    gradients: NotRequired[Key | None]
    quantized: NotRequired[Key | None]
    evaluation: Key
    parts: NotRequired[list[Key]]


class Git(TypedDict):
    commit: NotRequired[str | None]
    dirty: NotRequired[bool]


class Environment(TypedDict):
    git: NotRequired[Git | None]


class Site(TypedDict):
    block: Count
    site: str
    estimator: NotRequired[str | None]
    fallback: NotRequired[str | None]
    completeness: NotRequired[float | None]
    nodes: NotRequired[Count | None]
    exponents: NotRequired[list[float] | None]
    losses: NotRequired[list[float | None] | None]
    exponent: NotRequired[float | None]


class Metrics(TypedDict):
    by_type: NotRequired[dict[str, FiniteFloat]]
    sub_scores: NotRequired[dict[str, FiniteFloat]]
    accuracy: NotRequired[FiniteFloat]
    nll: NotRequired[FiniteFloat | None]
    n: NotRequired[Count]


Evaluated = TypedDict("Evaluated", {"documents": NotRequired[dict[str, str]], "samples.jsonl": NotRequired[str]})


class Data(TypedDict):
    evaluation: NotRequired[Evaluated]


@with_config(STRICT)
class Record(TypedDict):
    id: Key
    method: Method
    config: Config
    stages: Stages
    timings: Numbers
    memory: Numbers
    model_bytes: Numbers
    sites: list[Site]
    metrics: dict[str, Metrics]
    environment: NotRequired[Environment | None]
    data: NotRequired[Data | None]


@with_config(STRICT)
class Sample(TypedDict):
    task: str
    sample: str
    cluster: str
    type: str
    score: FiniteFloat
    nll: FiniteFloat | None


@with_config(STRICT)
class State(TypedDict):
    status: str
    overrides: NotRequired[list[str]]
    error: NotRequired[str | None]


@with_config(STRICT)
class Left(TypedDict):
    run: Key
    store: str
    cached: bool
    baselines: dict[str, Key | None]


RECORD, SAMPLE, STATE, LEFT = (TypeAdapter(kind) for kind in (Record, Sample, State, Left))



def parsed(text: str, what: str, kind: TypeAdapter) -> dict[str, Any]:
    """The object that a JSON text holds, of the described kind; keys that are not described stay.

    Raises:
        StoreError: no JSON, no text that can be written again, or another kind; says where and what was expected.
    """
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()  # a lone surrogate
        if text.count("{") + text.count("[") >= DEEPEST:  # fewer cannot be nested that deep
            _refuse_deep(found)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{what} is not JSON: {type(error).__name__}: {error}") from error
    try:
        kind.validate_python(found)
    except ValidationError as error:
        raise StoreError(f"{what} {_said(error.errors(include_url=False, include_context=False))}") from error
    return found


def _refuse_deep(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        inner = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, (dict, list))]
        level = [part for parts in inner for part in parts]
    if level:
        raise ValueError(f"nested more than {DEEPEST} deep")


def _said(errors: list[dict[str, Any]]) -> str:
    """What is absent, or else the first part that is of another kind."""
    absent = [".".join(map(str, error["loc"])) for error in errors if error["type"] == "missing"]
    if absent:
        return f"lacks {', '.join(absent)}"
    first, *others = errors
    got = repr(first["input"])
    shown = got if len(got) < 60 else got[:60] + "..."
    more = f" (and {len(others)} more)" if others else ""
    return f"holds {shown} as {'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg']}{more}"


def read(path: Path) -> str:
    """The text of a file.

    Raises:
        StoreError: it cannot be read, or is no UTF-8; FileNotFoundError stays what it is.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
