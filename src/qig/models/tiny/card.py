"""The model card written beside trained weights."""

from __future__ import annotations

_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
tags: [synthetic-task, digitgrid, post-training-quantization]
---

# {name}

A {parameters:.2f} M parameter `{architecture}` trained on DigitGrid, a synthetic task: questions about 3x3 grids of
the handwritten digits that scikit-learn ships. It exists so that quantization methods can be run end to end, without
network or accelerator, on the real model class. **It knows nothing but this task**: {vocabulary} words, images of
48x48 pixels. It says nothing about how a method fares on a pretrained model.

## What it reaches

Exact match, greedy, {questions} questions ({per_type} a type) on images of digit scans that training never saw,
asked one at a time through the saved processor, weights in {dtype}:

| question type | accuracy |
| --- | --- |
{accuracies}
| **mean** | **{mean:.1%}** |

## How it was trained

`qig-train-tiny model={name} --seed {seed} --steps {steps} --out DIR`: {cpu_minutes:.0f} minutes of CPU time on
{threads} thread(s), {wall_minutes:.0f} by the clock with whatever else that machine was doing (AdamW, peak learning
rate {learning_rate:g}, {images} images a step with about a dozen prompts each).

1. {alignment_steps} steps of alignment: each image token is classified as its cell's digit, colour and place against
   the word embeddings.
2. {steps} steps on packed prompts: pair lists, captions and questions about one image share its encoding. Look-ups
   come first; all eleven types from step {unlock_step}; weak types are asked more often.

`training_record.json` holds the recipe, the versions and the curve.
"""


def model_card(record: dict) -> str:
    """The card of a training record (see ``train.train``)."""
    recipe, accuracy = record["recipe"], record["test_accuracy"]
    return _CARD.format(
        **{key: record[key] for key in ("name", "architecture", "vocabulary", "questions", "per_type", "dtype")},
        **{key: record[key] for key in ("seed", "threads", "unlock_step")},
        **{key: recipe[key] for key in ("steps", "alignment_steps", "learning_rate", "images")},
        parameters=record["parameters"] / 1e6,
        wall_minutes=record["wall_seconds"] / 60,
        cpu_minutes=record["cpu_seconds"] / 60,
        mean=record["test_accuracy_mean"],
        accuracies="\n".join(f"| {type} | {value:.1%} |" for type, value in accuracy.items()),
    )
