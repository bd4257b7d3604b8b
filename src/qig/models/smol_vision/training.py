"""Three stages: the tower learns to say what it sees in word embeddings; the language model, by a LoRA, to answer from
such words, spoken without mistakes; then both together answer from pictures. The first two need nothing of each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import InternVLForConditionalGeneration, InternVLProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from qig.data.digitgrid import Scene, SceneSampler
from qig.models.smol_vision.build import END, TURN_CHANGE
from qig.models.smol_vision.slots import Slots
from qig.models.tiny.packing import IGNORED, Writer, answered, image_prefix, pack, packed_inputs
from qig.models.tiny.recipe import Curriculum, Recipe
from qig.models.tiny.training import image_features, progress

STAGES = ("see", "read", "together")
_SHARED = {"images": 4, "alignment_images": 32, "weight_decay": 0.01, "warmup_steps": 20, "unlock_accuracy": 0.8}
RECIPES = {
    "see": Recipe(steps=0, alignment_steps=4000, learning_rate=1e-3, **_SHARED),
    "read": Recipe(steps=320, alignment_steps=0, learning_rate=1e-3, **_SHARED),
    "together": Recipe(steps=36, alignment_steps=0, learning_rate=3e-4, **_SHARED),
}
NOISE = 0.2
_STREAMS = {"see": 4, "read": 5, "together": 6}  # scenes of their own
_REPORT_EVERY = {"see": 100, "answer": 5}


@dataclass(frozen=True)
class Adapter:
    """Rank and strength of the LoRA on all linears of the language model; 8 takes 5 MB in 16 bits."""

    rank: int = 8
    alpha: float = 16.0

    def on(self, language_model) -> PeftModel:
        linears = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        return get_peft_model(language_model, LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=linears))


class Trainer:
    """Trains in place, in float32; ``images_at_once`` bounds the memory of a step, and changes nothing else."""

    def __init__(
        self,
        model: InternVLForConditionalGeneration,
        processor: InternVLProcessor,
        stage: str,
        recipe: Recipe,
        seed: int,
        report: Callable[[str], None],
        images_at_once: int = 6,
    ) -> None:
        self.model, self.processor, self.recipe, self.report = model, processor, recipe, report
        self.images_at_once = images_at_once
        tokenizer = processor.tokenizer
        self.slots = Slots(tokenizer, model.get_input_embeddings().weight.detach())
        self.stage = stage
        self.sampler = SceneSampler("train", (_STREAMS[stage], seed))
        self.prefix = image_prefix(model, processor)
        self.pad = tokenizer.convert_tokens_to_ids(END)
        self.curriculum = Curriculum(
            writer=Writer(lambda text: tokenizer.encode(text, add_special_tokens=False), TURN_CHANGE, END)
        )
        self.curve: list[dict] = []
        model.requires_grad_(False)
        model.model.vision_tower.requires_grad_(stage != "read")
        model.model.multi_modal_projector.requires_grad_(stage != "read")

    def steps(self, adapter: Adapter) -> Iterator[int]:
        """The stage; yields the number of steps done after each."""
        return self._see() if self.stage == "see" else self._answer(adapter)

    def _see(self) -> Iterator[int]:
        recipe, started = self.recipe, time.monotonic()
        optimizer = self._optimizer()
        for step in range(recipe.alignment_steps):
            scenes = [self.sampler.sample() for _ in range(recipe.alignment_images)]
            loss, right = self.slots.loss(self._outputs(scenes).pooler_output, scenes)
            loss.backward()
            left = 1 - step / recipe.alignment_steps
            self._update(optimizer, recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup_steps, 3 * left))
            if (step + 1) % _REPORT_EVERY["see"] == 0:
                shown = " ".join(f"{slot} {share:.3f}" for slot, share in right.items())
                self.report(f"see {progress(started, step + 1, recipe.alignment_steps)} loss {loss:.3f} {shown}")
                self.curve.append({"step": step + 1, "loss": round(loss.item(), 4), "right": right})
            yield step + 1

    def _answer(self, adapter: Adapter) -> Iterator[int]:
        recipe, started = self.recipe, time.monotonic()
        inner = self.model.model
        if not isinstance(inner.language_model, PeftModel):
            inner.language_model = adapter.on(inner.language_model)
        for name, parameter in inner.language_model.named_parameters():
            parameter.requires_grad_("lora_" in name)
        optimizer = self._optimizer()
        for step in range(recipe.steps):
            scenes = [self.sampler.sample() for _ in range(recipe.images)]
            loss = sum(
                self._backward(scenes[start : start + self.images_at_once])
                for start in range(0, len(scenes), self.images_at_once)
            )
            self._update(optimizer, recipe.rate(step))
            late = step >= recipe.unlock_share * recipe.steps
            self.curriculum.unlocked |= late or self.curriculum.lookup_accuracy() >= recipe.unlock_accuracy
            if (step + 1) % _REPORT_EVERY["answer"] == 0 or step + 1 == recipe.steps:
                accuracy = {type: round(value, 3) for type, value in self.curriculum.accuracy.items()}
                self.curve.append({"step": step + 1, "loss": round(loss, 4), "train_accuracy": accuracy})
                shown = " ".join(f"{type} {value:.2f}" for type, value in accuracy.items())
                self.report(f"{self.stage} {progress(started, step + 1, recipe.steps)} loss {loss:.3f} {shown}")
            yield step + 1

    def _backward(self, scenes: Sequence[Scene]) -> float:
        """Gradients of the mean loss of the learned tokens, as a part of the step's; returns that part."""
        batch = pack(self.prefix, [self.curriculum.segments(scene, self.sampler.rng) for scene in scenes], self.pad)
        hidden = self.model.model(**packed_inputs(batch, self._outputs(scenes), torch.float32)).last_hidden_state
        learned = batch.labels[:, 1:] != IGNORED
        logits = self.model.lm_head(hidden[:, :-1][learned])  # most tokens never meet the vocabulary
        loss = F.cross_entropy(logits, batch.labels[:, 1:][learned]) * len(scenes) / self.recipe.images
        loss.backward()
        told = torch.full_like(batch.labels, IGNORED)
        told[:, :-1][learned] = logits.detach().argmax(-1)
        for type, hits in answered(batch, told).items():
            self.curriculum.record(type, hits)
        return loss.item()

    def _outputs(self, scenes: Sequence[Scene]) -> BaseModelOutputWithPooling:
        if self.stage == "read":
            return BaseModelOutputWithPooling(pooler_output=self.slots.spoken(scenes, NOISE))
        return image_features(self.model, self.processor, scenes)

    def _optimizer(self) -> torch.optim.Optimizer:
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(trained, betas=(0.9, 0.98), weight_decay=self.recipe.weight_decay, fused=True)

    def _update(self, optimizer: torch.optim.Optimizer, rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate
            torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
