"""Answers in which a task's parser found no option, where that can be known.

Such an answer counts as wrong, or, in MMMU, as an option drawn at random: a score that is no longer the model's.
"""

from __future__ import annotations

import ast
import string
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch


def unparsed(task: str, doc: dict[str, Any], answer: str) -> bool | None:
    """Whether nothing could be read out of ``answer`` (after the task's filters); None where it cannot be known."""
    return PARSERS[task](doc, answer) if task in PARSERS else None


def _mmmu(doc: dict[str, Any], answer: str) -> bool:
    from lmms_eval.tasks._task_utils import mmmu_mcq_utils

    if doc["question_type"] != "multiple-choice":
        return not answer.strip()
    options, letters = mmmu_mcq_utils.get_multi_choice_info(ast.literal_eval(doc["options"]))
    # The parser's last resort is random.choice; here it draws nothing, and no generator moves.
    with patch.object(mmmu_mcq_utils, "random", SimpleNamespace(choice=lambda _: None)):
        return mmmu_mcq_utils.parse_mmmu_multi_choice_response(answer, letters, options) is None


def _ai2d(doc: dict[str, Any], answer: str) -> bool:
    # Its filter has taken the letter out of "B. text"; the comparison ignores case and punctuation.
    return _letter(answer.translate(str.maketrans("", "", string.punctuation)), len(doc["options"])) is None


def _scienceqa(doc: dict[str, Any], answer: str) -> bool:
    answer = answer.strip()
    return _letter(answer[0] if answer[1:2] == "." and answer[0].isupper() else answer, len(doc["choices"])) is None


def _seedbench(doc: dict[str, Any], answer: str) -> bool:
    return _letter(answer.strip()[:1], 4) is None


def _letter(text: str, options: int) -> str | None:
    text = text.strip().upper()
    return text if len(text) == 1 and text in string.ascii_uppercase[:options] else None


PARSERS: dict[str, Callable[[dict[str, Any], str], bool]] = {
    "mmmu_val": _mmmu,
    "ai2d": _ai2d,
    "scienceqa_img": _scienceqa,
    "seedbench": _seedbench,
}
"""By task. Tasks that compare free text have no parser, so that nothing is unparsed."""
