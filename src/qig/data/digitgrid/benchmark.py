"""The fixed question set on test digits, and calibration samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL.Image import Image

from qig.data.samples import CalibrationSample, single_turn
from qig.errors import DataError

from .captions import CAPTION_PROMPT, natural_caption
from .questions import QUESTION_TYPES, ask
from .scenes import SceneSampler

# Separate streams: equal seeds must not give the same scenes to evaluation and calibration.
_EVALUATION_STREAM, _CALIBRATION_STREAM = 1, 2


@dataclass(frozen=True, eq=False)
class EvaluationItem:
    """One question about one picture; questions with the same ``image_id`` share the picture and so the errors."""

    id: str
    image_id: str
    image: Image
    question: str
    answer: str
    type: str


def evaluation_set(seed: int = 0, images: int = 400, per_type: int = 200) -> list[EvaluationItem]:
    """``per_type`` questions of each of the eleven types on at most ``images`` pictures of test digits.

    Each picture gets the same number of questions, ``per_type * 11 / images`` rounded up, of different types.
    The list is a pure function of its arguments.
    """
    sampler = SceneSampler("test", (_EVALUATION_STREAM, seed))
    asked = dict.fromkeys(QUESTION_TYPES, 0)
    items: list[EvaluationItem] = []
    total = per_type * len(QUESTION_TYPES)
    for index in range(images):
        scene = sampler.sample()
        picture = scene.pil()
        image_id = f"digitgrid-{seed}-{index:04d}"
        quota = min(-(-total // images), total - len(items))
        # The types that lag behind come first, since some pictures allow no question of some types.
        order = np.lexsort((sampler.rng.random(len(QUESTION_TYPES)), list(asked.values())))
        for type in (QUESTION_TYPES[place] for place in order):
            question = ask(scene, type, sampler.rng) if quota and asked[type] < per_type else None
            if question is None:
                continue
            asked[type] += 1
            quota -= 1
            items.append(EvaluationItem(f"{image_id}-{type}", image_id, picture, question.text, question.answer, type))
    if len(items) < total:
        raise DataError(
            f"{images} images allow {len(items)} questions, fewer than {per_type} of each of the "
            f"{len(QUESTION_TYPES)} types; ask for more images or fewer questions"
        )
    return items


def calibration_samples(n: int, seed: int = 0, split: str = "train") -> list[CalibrationSample]:
    """``n`` pictures with natural captions; sample ``i`` does not depend on ``n``."""
    sampler = SceneSampler(split, (_CALIBRATION_STREAM, seed))
    scenes = (sampler.sample() for _ in range(n))
    return [
        single_turn(f"digitgrid-{split}-{seed}-{i:05d}", [scene.pil()], CAPTION_PROMPT, natural_caption(scene))
        for i, scene in enumerate(scenes)
    ]
