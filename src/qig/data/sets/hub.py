"""Data sets of the Hugging Face hub where the network may be absent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 5


@contextmanager
def without_waiting(name: str) -> Iterator[None]:
    """Within the context only the local cache is asked if the hub does not answer, without retries."""
    import datasets
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().dataset_info(name, timeout=SECONDS)
        offline = False
    except HfHubHTTPError:  # it answers, if only that there is no such data set
        offline = False
    except Exception:  # no answer; the error is that of whichever HTTP library the hub's client stands on
        offline = True
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if offline:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before
