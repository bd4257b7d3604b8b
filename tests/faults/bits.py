"""Whether a store holds what an undisturbed run would have left: every bit but times and memory."""

from __future__ import annotations

import json
from pathlib import Path

from qig.store import MANIFEST, find_damage

VOLATILE = {"created", "timings", "seconds", "work_seconds", "memory", "store", "tracking", "variables"}
"""When, how long, how much memory, where, who was told, and what the process that wrote the record had set."""
UNCOMPARED = {MANIFEST, "seconds.json"}


def differences(store: Path, reference: Path) -> list[str]:
    """What is wrong with a store after its runs have ended well; nothing if all is right."""
    found = []
    ours, theirs = _artefacts(store), _artefacts(reference)
    if ours.keys() != theirs.keys():
        found.append(f"artefacts differ: {sorted(ours.keys() ^ theirs.keys())}")
    for name in sorted(ours.keys() & theirs.keys()):
        damage = find_damage(ours[name])
        if damage:
            found.append(f"{name}: {damage}")
        found += [f"{name}: {what}" for what in _folders_differ(ours[name], theirs[name])]
    left = [f"{path.parent.name}/{path.name}" for path in store.glob("locks/*/*")]  # an empty lock is a free one
    partial = [path.name for path in store.glob("*/.partial-*")]
    return found + [f"left behind: {name}" for name in (*left, *partial)]


def _artefacts(store: Path) -> dict[str, Path]:
    return {
        f"{path.parent.name}/{path.name}": path
        for path in store.glob("*/*")
        if path.parent.name != "locks" and not path.name.startswith(".")
    }


def _folders_differ(one: Path, other: Path) -> list[str]:
    names = [{str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file() and f.name not in UNCOMPARED}
             for folder in (one, other)]  # fmt: skip
    found = [f"files differ: {sorted(names[0] ^ names[1])}"] if names[0] != names[1] else []
    for name in sorted(names[0] & names[1]):
        if _content(one / name) != _content(other / name):
            found.append(f"{name} differs")
    return found


def _content(file: Path) -> object:
    return _steady(json.loads(file.read_text())) if file.suffix == ".json" else file.read_bytes()


def _steady(value: object) -> object:
    if isinstance(value, dict):
        return {key: _steady(part) for key, part in value.items() if key not in VOLATILE}
    return [_steady(part) for part in value] if isinstance(value, list) else value
