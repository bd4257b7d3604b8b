"""Offline W&B runs read back, as W&B itself would send them."""

from __future__ import annotations

import json
import time
from pathlib import Path


def offline_records(config):
    """The records of the only offline run, as W&B itself would send them."""
    # W&B's own process writes the last block a moment after finish has returned.
    deadline = time.monotonic() + 20
    while True:
        records = scan(config)
        if any(kind(record) == "exit" for record in records) or time.monotonic() > deadline:
            return records
        time.sleep(0.05)


def scan(config):
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    (folder,) = Path(config["tracking"]["dir"], "wandb").glob("offline-run-*")
    paths = list(folder.glob("*.wandb"))
    if not paths or not paths[0].stat().st_size:
        return []
    data = DataStore()
    records = []
    try:
        data.open_for_scan(str(paths[0]))
        while (content := data.scan_data()) is not None:
            records.append(wandb_internal_pb2.Record.FromString(content))
    except AssertionError:  # a block that is only half on disk yet
        pass
    finally:
        data.close()
    return records


def kind(record):
    return record.WhichOneof("record_type")


def exit_codes(config):
    return [record.exit.exit_code for record in offline_records(config) if kind(record) == "exit"]


def values(updates):
    """key -> value of a list of W&B items, nested keys joined by a dot."""
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in updates}


def logged(config):
    found = {}
    for record in offline_records(config):
        if kind(record) == "history":
            found |= values(record.history.item)
    return found


def table(config, found, key):
    (folder,) = Path(config["tracking"]["dir"], "wandb").glob("offline-run-*")
    return json.loads((folder / "files" / found[f"{key}.path"]).read_text())
