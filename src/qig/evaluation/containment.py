"""Keeps what lmms-eval does to the process, its logs, bars and patches, within the evaluation."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

_MODULES_WITH_BARS = ("lmms_eval.evaluator", "lmms_eval.api.task")

# Our chat model logs as lmms-eval's do; in memory its empty answers are reported by the evaluation itself.
_LOGGED_BY = ("lmms_eval", "qig.evaluation.chat_model")


@contextmanager
def contained() -> Iterator[None]:
    """Silence lmms-eval's logs, warnings and progress bars, and undo afterwards what it does to Pillow.

    Its patch of filelock is left out: that is for data sets loaded while others are, tasks here are loaded before, and
    filelock 4.3 has no longer what it patches.

    Within the context truncated pictures are read as far as they go, as lmms-eval has it: it tells Pillow so once, when
    it is imported. Elsewhere they stay an error.

    Bars are silenced in modules that are already imported: import lmms-eval before entering where bars would show.
    """
    from loguru import logger
    from PIL import Image, ImageFile
    from tqdm import tqdm

    from qig.determinism import let_through

    def silent(*arguments, **options):
        return tqdm(*arguments, **{**options, "disable": True})

    truncated, pixels = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    bars = {sys.modules[name]: sys.modules[name].tqdm for name in _MODULES_WITH_BARS if name in sys.modules}
    for source in _LOGGED_BY:
        logger.disable(source)
    evaluator = sys.modules.get("lmms_eval.evaluator", SimpleNamespace(_enable_reentrant_filelocks=None))
    locks, evaluator._enable_reentrant_filelocks = evaluator._enable_reentrant_filelocks, lambda: None
    try:
        for module in bars:
            module.tqdm = silent
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            let_through()
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = truncated, pixels
        for source in _LOGGED_BY:
            logger.enable(source)
        for module, bar in bars.items():
            module.tqdm = bar
        evaluator._enable_reentrant_filelocks = locks
