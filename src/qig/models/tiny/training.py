"""The two training stages: alignment of image tokens, then packed prompts under a curriculum."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
import transformers
from transformers import PreTrainedModel, ProcessorMixin

from qig.data.digitgrid import Scene, SceneSampler
from qig.models.tiny.alignment import alignment_loss
from qig.models.tiny.packing import IGNORED, PackedBatch, answered, image_prefix, pack, packed_logits
from qig.models.tiny.recipe import Curriculum, Recipe

_TRAINING_STREAM = 3
_REPORT_EVERY = 50


class Trainer:
    """Trains ``model`` in place with bfloat16 autocast on scenes of training digits.

    ``curve`` collects what every progress line says; ``unlock_step`` is the step from which all types were asked.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        recipe: Recipe,
        seed: int,
        report: Callable[[str], None],
    ) -> None:
        self.model, self.processor, self.recipe, self.report = model.train(), processor, recipe, report
        model.set_attn_implementation("eager")  # the backward pass of the fused one is slow in bfloat16 on CPUs
        self.prefix = image_prefix(model, processor)
        self.sampler = SceneSampler("train", (_TRAINING_STREAM, seed))
        self.curriculum = Curriculum()
        self.unlock_step: int | None = None
        self.curve: list[dict] = []
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        vectors = [p for p in model.parameters() if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )

    def align(self) -> None:
        """Stage 1: the vision tower and the projector learn to speak in word embeddings."""
        recipe, started = self.recipe, time.monotonic()
        for step in range(recipe.alignment_steps):
            scenes = [self.sampler.sample() for _ in range(recipe.alignment_images)]
            with torch.autocast("cpu", torch.bfloat16):
                features = image_features(self.model, self.processor, scenes)
            losses = alignment_loss(self.model, features.pooler_output, scenes)
            self._update(losses.sum(), recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup_steps))
            if (step + 1) % _REPORT_EVERY == 0 or step + 1 == recipe.alignment_steps:
                values = " ".join(
                    f"{n} {v:.3f}" for n, v in zip(("digit", "color", "cell"), losses.tolist(), strict=True)
                )
                self.report(f"align {progress(started, step + 1, recipe.alignment_steps)} loss {values}")

    def run(self) -> Iterator[int]:
        """Stage 2; yields the number of steps done after each."""
        recipe, started = self.recipe, time.monotonic()
        smooth = 0.0
        for step in range(recipe.steps):
            loss = self._step(step)
            smooth = loss if step == 0 else 0.97 * smooth + 0.03 * loss
            self._maybe_unlock(step + 1)
            if (step + 1) % _REPORT_EVERY == 0 or step + 1 == recipe.steps:
                accuracy = {type: round(value, 3) for type, value in self.curriculum.accuracy.items()}
                self.curve.append({"step": step + 1, "loss": round(smooth, 4), "train_accuracy": accuracy})
                shown = " ".join(f"{type} {value:.3f}" for type, value in accuracy.items())
                self.report(f"train {progress(started, step + 1, recipe.steps)} loss {smooth:.3f} {shown}")
            yield step + 1

    def _step(self, step: int) -> float:
        recipe = self.recipe
        scenes = [self.sampler.sample() for _ in range(recipe.images)]
        batch = pack(self.prefix, [self.curriculum.segments(scene, self.sampler.rng) for scene in scenes])
        with torch.autocast("cpu", torch.bfloat16):
            features = image_features(self.model, self.processor, scenes)
            logits = packed_logits(self.model, batch, features, torch.bfloat16)
        learned = batch.labels[:, 1:] != IGNORED
        loss = F.cross_entropy(logits[:, :-1][learned].float(), batch.labels[:, 1:][learned])
        total = loss
        if step < recipe.alignment_share * recipe.steps:
            total = loss + recipe.alignment_weight * alignment_loss(self.model, features.pooler_output, scenes).sum()
        self._update(total, recipe.rate(step))
        self._record(batch, logits.detach())
        return loss.item()

    def _record(self, batch: PackedBatch, logits: torch.Tensor) -> None:
        for type, hits in answered(batch, logits.argmax(-1)).items():
            self.curriculum.record(type, hits)

    def _maybe_unlock(self, step: int) -> None:
        recipe, curriculum = self.recipe, self.curriculum
        late = step >= recipe.unlock_share * recipe.steps
        if not curriculum.unlocked and (late or curriculum.lookup_accuracy() >= recipe.unlock_accuracy):
            curriculum.unlocked, self.unlock_step = True, step
            self.report(f"all question types from step {step}")

    def _update(self, loss: torch.Tensor, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def image_features(model: PreTrainedModel, processor: ProcessorMixin, scenes: Sequence[Scene]):
    """The model's own ``get_image_features`` of the scenes' pictures."""
    images = [torch.from_numpy(scene.image).permute(2, 0, 1) for scene in scenes]
    inputs = processor.image_processor(images, return_tensors="pt")
    accepted = {name: inputs[name] for name in ("pixel_values", "image_grid_thw", "image_sizes") if name in inputs}
    return model.model.get_image_features(**accepted, return_dict=True)


def progress(started: float, done: int, total: int) -> str:
    """Steps done, seconds since ``started`` (of ``time.monotonic``), and seconds left at that pace."""
    elapsed = time.monotonic() - started
    return f"{done}/{total} ({elapsed:.0f} s, {elapsed / done * (total - done):.0f} s left)"


def versions() -> dict[str, str]:
    """What a training ran on, for its record."""
    return {
        "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__
    }  # fmt: skip
