"""DigitGrid: visual question answering over 3x3 grids of real handwritten digits. Needs numpy and PIL, never torch."""

from .benchmark import EvaluationItem, calibration_samples, evaluation_set
from .captions import CAPTION_PROMPT, PairList, natural_caption, pair_list
from .questions import LOOKUP_TYPES, QUESTION_TYPES, Question, ask
from .scenes import CELLS, COLORS, IMAGE_SIZE, Scene, SceneSampler, digit_pool
from .vocabulary import SPECIAL_TOKENS, VOCABULARY, encode

__all__ = [
    "CAPTION_PROMPT",
    "CELLS",
    "COLORS",
    "IMAGE_SIZE",
    "LOOKUP_TYPES",
    "QUESTION_TYPES",
    "SPECIAL_TOKENS",
    "VOCABULARY",
    "EvaluationItem",
    "PairList",
    "Question",
    "Scene",
    "SceneSampler",
    "ask",
    "calibration_samples",
    "digit_pool",
    "encode",
    "evaluation_set",
    "natural_caption",
    "pair_list",
]
