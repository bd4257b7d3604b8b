from dataclasses import replace
from io import BytesIO
from types import SimpleNamespace

import pytest
from PIL import Image

from qig.errors import EvaluationError
from qig.evaluation.generation import generate_answers
from qig.evaluation.protocols import PLAIN


@pytest.fixture
def chat_model(internvl, questions):
    from qig.evaluation.chat_model import QigChatModel

    model = QigChatModel(model=internvl[0], processor=internvl[1], batch_size=4)
    model.task_dict = {"task": {"test": questions}}
    return model


def request(index, question, **options):
    def messages(doc):
        return [
            {"role": "user", "content": [{"type": "image", "url": doc.image}, {"type": "text", "text": doc.question}]}
        ]

    options = {"max_new_tokens": 4, "until": ["\n"], **options}
    return SimpleNamespace(args=(question.question, messages, options, index, "task", "test"))


def test_answers_come_in_the_order_of_the_requests(chat_model, questions):
    requests = [request(index, question, max_new_tokens=3 + index % 2) for index, question in enumerate(questions[:12])]
    together = chat_model.generate_until(requests)
    assert together == [chat_model.generate_until([single])[0] for single in requests]
    assert len(set(together)) > 1


def test_batches_that_are_sampled_draw_other_numbers_each_and_the_same_again(chat_model, questions, monkeypatch):
    import torch

    def drawn(_model, _processor, conversations, *_):
        return [str(float(torch.rand(()))) for _ in conversations]

    monkeypatch.setattr("qig.evaluation.chat_model.generate_answers", drawn)
    requests = [request(index, question) for index, question in enumerate(questions[:12])]  # three batches
    torch.manual_seed(3)
    first = chat_model.generate_until(requests)
    torch.manual_seed(3)
    assert len(set(first)) == 12 and chat_model.generate_until(requests) == first


def test_empty_answers_are_told(chat_model, questions, monkeypatch):
    from loguru import logger

    answers = iter(["", "red", ""])
    monkeypatch.setattr("qig.evaluation.chat_model.generate_answers", lambda *_: [next(answers) for _ in range(3)])
    told = []
    sink = logger.add(told.append, format="{message}")
    chat_model.generate_until([request(index, questions[index]) for index in range(3)])
    logger.remove(sink)
    assert told == ["2 of 3 answers are empty\n"]


def test_a_picture_that_cannot_be_read_names_its_document(chat_model, questions):
    content = BytesIO()
    questions[3].image.save(content, "png")
    broken = Image.open(BytesIO(content.getvalue()[:120]))  # opens, and fails when it is looked at
    chat_model.task_dict["task"]["test"] = [*questions[:3], replace(questions[3], image=broken)]
    with pytest.raises(EvaluationError, match=r"picture of task 'task', split 'test', document 3 cannot be read"):
        chat_model.generate_until([request(index, questions[index]) for index in range(4)])


@pytest.mark.parametrize("size", [(0, 4), (1, 400)])
def test_a_picture_of_an_absurd_shape_names_its_document(chat_model, questions, size):
    absurd = Image.new("RGB", size)
    chat_model.task_dict["task"]["test"] = [*questions[:1], replace(questions[1], image=absurd)]
    with pytest.raises(EvaluationError, match=r"document 1 cannot be read: (is empty|has 1 by 400 pixels)"):
        chat_model.generate_until([request(index, questions[index]) for index in range(2)])


def test_a_failure_is_raised_and_no_answer_is_made_up(chat_model, questions, monkeypatch):
    monkeypatch.setattr(chat_model.model, "generate", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        chat_model.generate_until([request(0, questions[0])])


def test_the_model_survives_cleaning(chat_model, internvl):
    chat_model.clean()
    assert chat_model.model is internvl[0]


def test_a_checkpoint_is_loaded_from_its_directory(internvl, tmp_path, conversations):
    from qig.evaluation.chat_model import QigChatModel

    for part in internvl:
        part.save_pretrained(tmp_path)
    model = QigChatModel.create_from_arg_string(f"checkpoint={tmp_path}", {"batch_size": "8", "device": "cpu"})
    assert model.batch_size == 8
    assert not model.model.training
    saved = generate_answers(model.model, model.processor, conversations[:3], {"max_new_tokens": 4}, PLAIN)
    assert saved == generate_answers(*internvl, conversations[:3], {"max_new_tokens": 4}, PLAIN)


def test_half_a_model_is_refused(internvl):
    from qig.evaluation.chat_model import QigChatModel

    with pytest.raises(EvaluationError, match="got nothing; expected checkpoint, or model and processor"):
        QigChatModel()
    with pytest.raises(EvaluationError, match=r"got \['model'\]"):
        QigChatModel(model=internvl[0])
    with pytest.raises(EvaluationError, match=r"got \['checkpoint', 'processor'\]"):
        QigChatModel("some/run", processor=internvl[1])
