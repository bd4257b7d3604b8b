"""In a user's words, what Hydra and OmegaConf refuse in theirs: what came, what was expected, the choices."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import get_type_hints

from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from qig.config import conf_dir, schema
from qig.config.schema import GROUPS, Config
from qig.errors import choices, meant

EXPECTED = {"Integer": "a whole number", "Float": "a number (0.05, not 1/20 or 5%)", "bool": "true or false"}
OVERRIDE = re.compile(r"Error merging override \+*(?P<key>[^\s=]+)=(?P<value>.*)")
FULL_KEY = re.compile(r"full_key: (\S+)")


def reworded(error: Exception, told: str) -> str | None:
    """The refusal ``told`` in other words; ``None`` where Hydra's own are as good.

    Args:
        error: what was raised; Hydra's list of a group's choices is one of its attributes.
        told: its message, with its cause's.
    """
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        return _absent_choice(error, told)
    for pattern, words in REFUSALS:
        if found := pattern.search(told):
            return words(found, told)
    return None


def _absent_choice(error: MissingConfigException, told: str) -> str:
    group, _, name = error.missing_cfg_file.rpartition("/")
    inside = re.match(r"In '([^']+)': ", told)
    where = f"In {inside[1]}: " if inside and inside[1] != "config" else ""
    return where + choices(name, error.options, group.removeprefix("/"))


def _key(told: str) -> tuple[str, str]:
    """The key that a message is about, and the value as it was given, if it was given as a word."""
    word = OVERRIDE.search(told)
    if word:
        return word["key"], word["value"]
    place = FULL_KEY.search(told)
    return place[1] if place else "a value", ""


def _conversion(found: re.Match, told: str) -> str:
    (key, value), kind = _key(told), found["kind"]
    empty = "; nothing is null" if not value and OVERRIDE.search(told) else ""
    null = ", or null" if _keys().get(key) else ""
    return f"{key}={value or found['value']}: expected {EXPECTED.get(kind, kind)}{null}{empty}"


def _one_of(found: re.Match, told: str) -> str:
    return choices(found["value"], re.findall(r"'([^']+)'", found["names"]), _key(told)[0])


def _not_optional(_found: re.Match, told: str) -> str:
    return f"{_key(told)[0]}=null: expected a value"


def _one_of_a_list(_found: re.Match, told: str) -> str:
    key, value = _key(told)
    return f"{key} is a list: give it as {key}=[{value}]"


def _section(found: re.Match, told: str) -> str:
    (key, _), kind = _key(told), getattr(schema, found[1], None)
    names = [f"{key}.{one.name}" for one in fields(kind)] if is_dataclass(kind) else [f"{key}.NAME"]
    return f"{key} is no single value: set {', '.join(names)}"


def _of_null(found: re.Match, _told: str) -> str:
    key, parent = found["key"], found["parent"]
    group = parent.partition(".")[0]
    files = sorted(path.stem for path in conf_dir().glob(f"{group}/*.yaml"))
    return f"{key} cannot be set: {parent} is null with this {group}; of {', '.join(files)} others have it"


def _unknown_key(found: re.Match, told: str) -> str:
    place, kind = FULL_KEY.search(told), getattr(schema, found["kind"], None)
    key = place[1] if place else found["name"]
    group, _, rest = key.partition(".")
    owners = {name for name, one in GROUPS.get(group, {}).items() if rest in {each.name for each in fields(one)}}
    files = sorted(conf_dir().glob(f"{group}/*.yaml")) if owners else []
    having = [f"{group}={file.stem}" for file in files if OmegaConf.load(file).get("kind") in owners]
    if having:
        return f"{key} is a key of {', '.join(having)} alone"
    siblings = [f"{key[: -len(found['name'])]}{one.name}" for one in fields(kind)] if is_dataclass(kind) else []
    elsewhere = sorted(one for one in _keys() if one.endswith(f".{found['name']}"))
    if elsewhere and not meant(key, siblings):
        least = min(one.count(".") for one in elsewhere)
        near = " or ".join(one for one in elsewhere if one.count(".") == least)
        return f"unknown configuration key {key!r} (did you mean {near}?)"
    return choices(key, siblings, "configuration key")


def _several(found: re.Match, _told: str) -> str:
    key, value = found["key"], found["value"]
    sweep = f"a sweep over several is qig -m {key}={value}"
    if key in GROUPS or key in ("method", "+experiment"):
        return f"{key}={value}: expected one choice; {sweep}"
    return f"{key}={value}: expected one value; {sweep}, a list {key}=[{value}], text with a comma '{key}=\"{value}\"'"


def _list_of_choices(found: re.Match, _told: str) -> str:
    return f"{found[1]}: expected one choice, not a list; a sweep over several is qig -m {found[1]}=ONE,OTHER"


def _unreadable(found: re.Match, _told: str) -> str:
    key, equals, value = found["word"].partition("=")
    if equals:
        return (f"{found['word']} cannot be read as KEY=VALUE: a value with = ( ) {{ }} , or the like wants quotes of "
                f"its own, '{key}=\"{value}\"'")  # fmt: skip
    experiment = (conf_dir() / "experiment" / f"{key}.yaml").exists()
    return f"{key!r}: expected KEY=VALUE" + (f"; an experiment is qig -m +experiment={key}" if experiment else "")


def _no_name(found: re.Match, _told: str) -> str:
    return f"of a group a name is chosen, such as tracking=none, method=rtn; got {found[1]}"


Words = Callable[[re.Match, str], str]
REFUSALS: list[tuple[re.Pattern, Words]] = [
    (re.compile(r"Value '(?P<value>.*)' of type '\w+' could not be converted to (?P<kind>\w+)"), _conversion),
    (re.compile(r"Value '(?P<value>.*)' is not a valid (?P<kind>bool)"), _conversion),
    (re.compile(r"Invalid value '(?P<value>.*)', expected one of \[(?P<names>.*)\]"), _one_of),
    (re.compile(r"field '\S+' is not Optional"), _not_optional),
    (re.compile(r"Invalid value assigned: \w+ is not a ListConfig"), _one_of_a_list),
    (re.compile(r"Invalid type assigned: \w+ is not a subclass of (\w+)"), _section),
    (re.compile(r"Cannot set '(?P<key>\S+)' because '(?P<parent>\S+)' is None"), _of_null),
    (re.compile(r"Key '(?P<name>\S+)' not in '(?P<kind>\w+)'"), _unknown_key),
    (re.compile(r"Ambiguous value for argument '(?P<key>[^\s=]+)=(?P<value>.*)'"), _several),
    (re.compile(r"full_key: hydra\.runtime\.choices\.(\w+)"), _list_of_choices),
    (re.compile(r"Error when parsing index: \d+, string: (?P<word>.*) out of \["), _unreadable),
    (re.compile(r"Config group override must be a string or a list\. Got (\w+)"), _no_name),
]


def _keys() -> dict[str, bool]:
    """Every key that some choice of every group has, in dots, and whether its value may be null."""
    found = dict(_within(Config))
    for group, kinds in GROUPS.items():
        for kind in kinds.values():
            found |= {f"{group}.{name}": nullable for name, nullable in _within(kind)}
    return found


def _within(kind: type) -> Iterator[tuple[str, bool]]:
    for name, hint in get_type_hints(kind).items():
        kinds = (hint, *getattr(hint, "__args__", ()))
        yield name, type(None) in kinds
        for inner in filter(is_dataclass, kinds):
            yield from ((f"{name}.{each}", nullable) for each, nullable in _within(inner))
