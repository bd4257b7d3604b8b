"""The published prompts as chat templates: a system turn, then every turn closed by the template's separator.

The published code writes ``<image>`` and a line break before a question, and no line break between turns where the
separator has none (``conversation.py`` of OpenGVLab/InternVL, separator style MPT).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from qig.errors import ModelError, choices
from qig.models.internvl2.original import Original

IMAGE_TOKEN = "<IMG_CONTEXT>"


@dataclass(frozen=True)
class Prompt:
    """``end`` closes a turn (the token that stops generation), ``separator`` follows it."""

    system: str
    end: str
    separator: str


_ASSISTANT = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
_INTERNVL = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)

PROMPTS = {
    "internlm2-chat": Prompt(_ASSISTANT, "<|im_end|>", ""),
    "Hermes-2": Prompt(_ASSISTANT, "<|im_end|>", ""),
    "internvl2_5": Prompt(_INTERNVL, "<|im_end|>", "\n"),
}

_TEMPLATE = (
    "{% macro render(content) %}{% if content is string %}{{ content }}{% else %}{% for part in content %}"
    "{% if part['type'] == 'image' %}{{ IMAGE }}{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% endmacro %}"
    "{% if messages[0]['role'] != 'system' %}{{ SYSTEM }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{{ render(message['content']) }}{{ END }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def prompt_of(original: Original) -> Prompt:
    """The prompt that the configuration names, with its own system message if it has one.

    Raises:
        ModelError: a template that is not InternVL2's.
    """
    name = original.top["template"]
    if name not in PROMPTS:
        raise ModelError(f"{original.top.name}: {choices(name, PROMPTS, 'template')}")
    prompt = PROMPTS[name]
    return Prompt(original.top.get("system_message") or prompt.system, prompt.end, prompt.separator)


def chat_template(prompt: Prompt) -> str:
    """Jinja source of the prompt; a conversation's own system turn replaces the default one."""
    end = prompt.end + prompt.separator
    strings = {
        "IMAGE": f"{IMAGE_TOKEN}\n",
        "SYSTEM": f"<|im_start|>system\n{prompt.system}{end}",
        "END": end,
    }
    template = _TEMPLATE
    for name, value in strings.items():
        template = template.replace(f"{{{{ {name} }}}}", "{{ " + json.dumps(value, ensure_ascii=False) + " }}")
    return template
