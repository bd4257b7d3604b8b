"""The model is asked what lmms-eval's own wrapper of its family asks: same text, pixels, tokens and arguments."""

import pytest
from transformers import AutoProcessor

from evaluation.wrapped import picture, processor_only, realistic, record, request, stand_in_model, wrapper_class
from qig.data.digitgrid import evaluation_set
from qig.errors import EvaluationError
from qig.evaluation.protocols import WRAPPERS, protocol_of
from qig.models.tiny import checkpoint_dir

OWN = {
    "tiny_llava_onevision": "chat.llava_hf.LlavaHf",
    "tiny_qwen2_vl": "simple.qwen2_vl.Qwen2_VL",
    "tiny_internvl": "chat.internvl_hf.InternVLHf",
}
NEWER = {"qwen2_5_vl": "chat.qwen2_5_vl.Qwen2_5_VL", "qwen3_vl": "chat.qwen3_vl.Qwen3_VL"}
DIGITS = evaluation_set(seed=5, images=12, per_type=4)[0]
NO_PICTURE = {"pictures": [], "question": "how many digits ?"}
DOCS = {
    "digitgrid": {"pictures": [DIGITS.image], "question": DIGITS.question},
    "small": {"pictures": [picture(31, 40)], "question": "what color is at r1c1 ?"},
    "wide": {"pictures": [picture(400, 90)], "question": "Which one?\nA. red\nB. blue\nAnswer with a letter."},
    "large": {"pictures": [picture(1100, 900)], "question": "how many digits ?"},
    "with a mark": {"pictures": [picture(64, 64)], "question": "<image>\nhow many digits ?"},
    "grey": {"pictures": [picture(80, 64, "L")], "question": "how many digits ?"},
    "several": {"pictures": [picture(48, 48), picture(150, 100), picture(60, 200)], "question": "one | two | all ?"},
}


@pytest.fixture(scope="module", params=[*OWN, *(f"realistic {name}" for name in OWN), *NEWER])
def pair(request, tmp_path_factory):
    """The wrapper on a checkpoint, our chat model on the wrapper's own model, and the folder.

    On the embedded checkpoints as they are, with processors that tile and resize as the published ones do, and for
    families without an embedded checkpoint with a processor and a model that only stands in.
    """
    case, _, name = request.param.rpartition(" ")
    folder = tmp_path_factory.mktemp(name) if case or name in NEWER else checkpoint_dir(name)
    if name in NEWER:
        processor_only(name, folder)
        with stand_in_model(name):
            theirs = wrapper_class(NEWER[name])(pretrained=str(folder), device="cpu", device_map="cpu")
    else:
        if case:
            realistic(name, folder)
        theirs = wrapper_class(OWN[name])(pretrained=str(folder), device="cpu", device_map="cpu")
    return theirs, on_the_same_model(theirs, folder, "wrapper"), folder


def on_the_same_model(theirs, folder, protocol):
    from qig.evaluation.chat_model import QigChatModel

    return QigChatModel(model=theirs.model, processor=AutoProcessor.from_pretrained(folder), protocol=protocol)


def both(monkeypatch, pair, docs, options, **more):
    theirs, ours, _ = pair
    kind = ours.protocol.requests
    processor_type = type(ours.processor)
    made = [request(kind, index, doc, options) for index, doc in enumerate(docs)]
    again = [request(kind, index, doc, options) for index, doc in enumerate(docs)]
    expected = record(monkeypatch, theirs, processor_type, theirs.model, docs, made, **more)
    return expected, record(monkeypatch, ours, processor_type, ours.model, docs, again, **more)


def seen(monkeypatch, lm, doc, options=None, **more):
    """What ``generate`` is given for one document, and the answer."""
    asked = [request(lm.protocol.requests, 0, doc, options or {})]
    (call,), (answer,) = record(monkeypatch, lm, type(lm.processor), lm.model, [doc], asked, **more)
    return call, answer


@pytest.mark.parametrize("doc", DOCS)
def test_the_model_sees_the_same(monkeypatch, pair, doc):
    ((theirs,), _), ((ours,), _) = both(monkeypatch, pair, [DOCS[doc]], {"max_new_tokens": 16})
    assert ours.texts == theirs.texts
    assert ours.inputs.keys() == theirs.inputs.keys()
    for name, expected in theirs.inputs.items():
        # Qwen2-VL's wrapper leaves it to the model to cast pixels to its precision.
        dtype = pair[1].model.dtype if expected.is_floating_point() else expected.dtype
        assert ours.inputs[name].dtype == dtype
        assert ours.inputs[name].equal(expected.to(dtype)), name
    assert "pixel_values" in ours.inputs


def test_a_question_without_a_picture(monkeypatch, pair):
    _, ours, _ = pair
    if ours.protocol.wrapper == "llava_hf":
        with pytest.raises(IndexError):  # it cannot be asked one; see docs/EVALUATION.md
            both(monkeypatch, pair, [NO_PICTURE], {})
        call, _ = seen(monkeypatch, ours, NO_PICTURE)
    else:
        ((expected,), _), ((call,), _) = both(monkeypatch, pair, [NO_PICTURE], {})
        assert call.texts == expected.texts
        assert call.inputs["input_ids"].equal(expected.inputs["input_ids"])
    assert NO_PICTURE["question"] in call.texts[0] and "<|image_pad|>" not in call.texts[0]
    assert "pixel_values" not in call.inputs


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_new_tokens": 16, "temperature": 0, "do_sample": False},
        {"max_new_tokens": 128, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False},
        {"until": ["ASSISTANT:"], "image_aspect_ratio": "original"},
        {"max_new_tokens": 5, "temperature": 0.7, "top_p": 0.9, "num_beams": 2},
        {"do_sample": True},
    ],
)
def test_it_generates_by_the_same_arguments(monkeypatch, pair, options):
    ((theirs,), _), ((ours,), _) = both(monkeypatch, pair, [DOCS["small"]], options)
    assert ours.arguments == theirs.arguments
    assert ours.arguments["max_new_tokens"] == options.get("max_new_tokens", pair[1].protocol.max_new_tokens)


@pytest.mark.parametrize("said", ["red", " blue red ", "red and blue"])
def test_it_reads_the_same_answer(monkeypatch, pair, said):
    (_, theirs), (_, ours) = both(monkeypatch, pair, [DOCS["small"], DOCS["wide"]], {"until": ["and"]}, said=said)
    assert ours == theirs


def test_corrected_heeds_stop_strings_and_strips(monkeypatch, pair):
    theirs, _, folder = pair
    corrected = on_the_same_model(theirs, folder, "corrected")
    _, answer = seen(monkeypatch, corrected, DOCS["small"], {"until": ["and"]}, said=" red and blue")
    assert answer == "red"


def test_corrected_keeps_the_prompt_and_the_arguments(monkeypatch, pair):
    theirs, ours, folder = pair
    corrected = on_the_same_model(theirs, folder, "corrected")
    followed, _ = seen(monkeypatch, ours, DOCS["wide"])
    call, _ = seen(monkeypatch, corrected, DOCS["wide"])
    assert call.texts == followed.texts and call.arguments == followed.arguments
    same = call.inputs["pixel_values"].equal(followed.inputs["pixel_values"])
    assert same == (ours.protocol.jpeg_quality is None)
    assert call.inputs["pixel_values"].shape == followed.inputs["pixel_values"].shape


@pytest.mark.parametrize("pair", ["realistic tiny_llava_onevision"], indirect=True)
def test_llava_onevision_tiles_several_pictures_in_the_wrapper_only(monkeypatch, pair):
    theirs, ours, folder = pair
    several = DOCS["several"]
    followed, _ = seen(monkeypatch, ours, several)
    corrected, _ = seen(monkeypatch, on_the_same_model(theirs, folder, "corrected"), several)
    plain, _ = seen(monkeypatch, on_the_same_model(theirs, folder, "plain"), several)
    assert corrected.inputs["input_ids"].equal(plain.inputs["input_ids"])
    assert corrected.inputs["input_ids"].shape[1] < followed.inputs["input_ids"].shape[1]


def test_every_described_family_is_compared():
    assert {row.wrapper for row in WRAPPERS.values()} == {path.split(".")[1] for path in (OWN | NEWER).values()}


def test_unknown_names_are_refused():
    with pytest.raises(EvaluationError, match=r"unknown evaluation.protocol 'wraper'.*did you mean 'wrapper'"):
        protocol_of("wraper", "qwen2_vl")
    with pytest.raises(EvaluationError, match=r"unknown family 'llama'; choose from: .*protocol=plain"):
        protocol_of("corrected", "llama")
    assert protocol_of("plain", "llama").wrapper == "qig"
