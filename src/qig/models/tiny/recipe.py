"""What one training run is made of: numbers of steps, sizes, rates, and the mixture of prompts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from qig.data.digitgrid import (
    CAPTION_PROMPT,
    LOOKUP_TYPES,
    QUESTION_TYPES,
    Scene,
    ask,
    natural_caption,
    pair_list,
)
from qig.models.tiny.packing import WORDS, Segment, Writer


@dataclass(frozen=True)
class Recipe:
    """Steps are the budget, not time: equal recipe and seed on one thread train the same model."""

    steps: int
    alignment_steps: int
    images: int = 12
    alignment_images: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup_steps: int = 60
    decay_share: float = 0.4
    alignment_weight: float = 0.3
    alignment_share: float = 0.6
    unlock_accuracy: float = 0.85
    unlock_share: float = 0.3

    def rate(self, step: int) -> float:
        """Learning rate: linear warm-up, constant, linear decay over the last ``decay_share`` of the steps."""
        left = (self.steps - step) / (self.decay_share * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps, max(left, 0.01))


RECIPES = {
    "tiny_qwen2_vl": Recipe(steps=3000, alignment_steps=500),
    "tiny_llava_onevision": Recipe(steps=3000, alignment_steps=700),
    "tiny_internvl": Recipe(steps=3000, alignment_steps=500),
}


@dataclass
class Curriculum:
    """Which question types are asked, and how often: look-ups alone first, then all, weak ones more often.

    Accuracies are running means over the questions trained on, before the step that learns them; they come from
    fresh scenes of training digits, so no test digit steers the mixture.
    """

    unlocked: bool = False
    writer: Writer = WORDS
    accuracy: dict[str, float] = field(default_factory=lambda: dict.fromkeys(QUESTION_TYPES, 0.0))

    def record(self, type: str, correct: list[bool]) -> None:
        kept = 0.997 ** len(correct)
        self.accuracy[type] = kept * self.accuracy[type] + (1 - kept) * float(np.mean(correct))

    def lookup_accuracy(self) -> float:
        return float(np.mean([self.accuracy[type] for type in LOOKUP_TYPES]))

    def shares(self) -> np.ndarray:
        """Probability of each question type."""
        active = QUESTION_TYPES if self.unlocked else LOOKUP_TYPES
        weights = np.array([1.06 - self.accuracy[type] if type in active else 0.0 for type in QUESTION_TYPES])
        return weights / weights.sum()

    def segments(self, scene: Scene, rng: np.random.Generator) -> list[Segment]:
        """The prompts trained on one picture: pair lists, for a quarter of them a caption, and questions."""
        lists, questions = (1, 11) if self.unlocked else (4, 8)
        pairs = [pair_list(scene, LOOKUP_TYPES[place], rng) for place in rng.permutation(len(LOOKUP_TYPES))[:lists]]
        segments = [self.writer.pairs(pair) for pair in pairs if pair.words]
        if rng.random() < 0.25:
            segments.append(self.writer.text(CAPTION_PROMPT, natural_caption(scene)))
        for place in rng.choice(len(QUESTION_TYPES), questions, p=self.shares()):
            question = ask(scene, QUESTION_TYPES[place], rng)
            if question is not None:
                segments.append(self.writer.question(question))
        return segments
