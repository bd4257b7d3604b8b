"""Content-addressed artefacts on disk that many processes and machines share; see docs/RELIABILITY.md."""

from qig.store.artefacts import Store
from qig.store.files import MANIFEST, disk_trouble, find_damage, part, write_json, write_manifest

__all__ = ["MANIFEST", "Store", "disk_trouble", "find_damage", "part", "write_json", "write_manifest"]
