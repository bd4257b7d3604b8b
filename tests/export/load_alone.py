"""Load checkpoints by transformers' own classes and keep their logits; run where our package cannot be found."""

import sys

QUESTION = "what is the color of the digit 3 ?"


def logits_of(model, processor, picture):
    import torch

    content = [{"type": "image", "path": picture}, {"type": "text", "text": QUESTION}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    with torch.no_grad():
        return model(**inputs.to(dtype=model.dtype)).logits.float().contiguous()


def main(picture, result, *folders):
    import importlib.util

    if importlib.util.find_spec("qig") is not None:
        sys.exit("our package can be found: this would prove nothing")
    from safetensors.torch import save_file
    from transformers import AutoModelForImageTextToText, AutoProcessor

    logits = {}
    for folder in folders:
        model = AutoModelForImageTextToText.from_pretrained(folder)
        logits[folder] = logits_of(model.eval(), AutoProcessor.from_pretrained(folder), picture)
    save_file(logits, result)


if __name__ == "__main__":
    main(*sys.argv[1:])
