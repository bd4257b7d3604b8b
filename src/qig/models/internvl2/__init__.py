"""InternVL2 as OpenGVLab publishes it, rewritten into the native InternVL format of transformers.

The published directories (``model_type`` ``internvl_chat``) name Python files that transformers would have to run.
Nothing of that is run here: the weights are renamed and unpacked, the tokenizer is rebuilt from its own files, and what
the native classes cannot express is refused. Importing this package imports neither torch nor transformers.
"""

from __future__ import annotations

from pathlib import Path

from qig.models import checkpoint

ORIGINAL = "internvl_chat"


def is_original(directory: Path) -> bool:
    """Whether ``config.json`` is of the published format; reads nothing else.

    Raises:
        ModelError: ``config.json`` cannot be read or names no model type.
    """
    return checkpoint.model_type(directory) == ORIGINAL


def convert(directory: Path, folder: Path) -> None:
    """Write the checkpoint of ``directory`` into the existing, empty ``folder`` in the native format.

    Raises:
        ModelError: absent, damaged, incomplete or unknown weights; a tokenizer that cannot be rebuilt; a configuration
            that the native classes cannot express; a ``folder`` that is not an empty directory.
    """
    from qig.models.internvl2 import conversion

    conversion.convert(directory, folder)
