"""Secrets: known by the name of their key, by their form, or as the value of an environment variable so named.

A configuration that holds one is refused, for configurations are written down; what else is written is masked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from qig.errors import ConfigError

HIDDEN = "<hidden>"
EMPTY = ("", "null")
SHORTEST = 8  # characters; shorter values of environment variables are words that occur anywhere
# "hf_token" and "api_key", but neither "max_tokens" nor "token_budget" nor "pad_token_id".
NAME = re.compile(r"(^|_)(token|secret|password|passwd|credentials?|auth|(api|access|private|secret)_?key)$")
CREDENTIALS = re.compile(r"(?<=://)[^/\s?#'\"]+(?=@)")  # of a URL
ASSIGNED = re.compile(r"([A-Za-z_][\w-]*)['\"]?\s*[=:]\s*['\"]?([^\s'\"},\]$]+)")
"""``NAME=value`` and ``NAME: value`` inside a value, as of ``hydra.launcher.setup`` and ``hydra.job.env_set``; a
``$VARIABLE`` is no secret."""
FORMS = re.compile(
    r"\b(hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}|wandb_v\d_\w{20,}|gh[oprsu]_[A-Za-z0-9]{20,}"
    r"|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[\w-]{20,}|AKIA[0-9A-Z]{16})"
)


def names_secret(key: object) -> bool:
    """Whether a key, a setting or an environment variable of this name holds a secret."""
    return bool(NAME.search(str(key).lower().replace("-", "_")))


def masked(text: str) -> str:
    """The text with every secret in it hidden."""
    for value in _of_environment():
        text = text.replace(value, HIDDEN)
    return FORMS.sub(HIDDEN, CREDENTIALS.sub(HIDDEN, text))


def without_secrets(value: Any) -> Any:
    """A plain copy of nested mappings and lists: texts masked, and what stands under keys that name a secret hidden."""
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if names_secret(key) and inner is not None else without_secrets(inner)
            for key, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [without_secrets(inner) for inner in value]
    return masked(value) if isinstance(value, str) else value


def refuse_in_words(words: Iterable[str]) -> None:
    """Refuse overrides ``KEY=VALUE`` of a command that hold a secret; before Hydra writes them into the job's folder.

    Raises:
        ConfigError: names the key, not the value.
    """
    for word in words:
        key, equals, value = word.partition("=")
        given = [(key.split(".")[-1], value), *ASSIGNED.findall(value)] if equals else []
        if masked(word) != word or any(names_secret(name) and text not in EMPTY for name, text in given):
            _refuse(masked(key).lstrip("+~"))


def refuse_in_config(config: Any, where: str = "") -> None:
    """Refuse a resolved configuration that holds a secret, from whichever file or environment variable it came.

    Raises:
        ConfigError: names the key, not the value.
    """
    if isinstance(config, Mapping):
        for key, value in config.items():
            inside = f"{where}.{key}" if where else str(key)
            if names_secret(key) and value is not None:
                _refuse(inside)
            refuse_in_config(value, inside)
    elif isinstance(config, (list, tuple)):
        for value in config:
            refuse_in_config(value, where)
    elif isinstance(config, str) and masked(config) != config:
        _refuse(where)


def _refuse(key: str) -> None:
    raise ConfigError(
        f"{key} holds a secret (a token, a key, or credentials in a URL), and configurations are written down; give "
        "secrets by HF_TOKEN, WANDB_API_KEY or `hf auth login`, and download beforehand what needs credentials"
    )


def _of_environment() -> list[str]:
    return [value for name, value in os.environ.items() if names_secret(name) and len(value) >= SHORTEST]
