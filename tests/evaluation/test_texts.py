"""Likelihood of running text against transformers' own loss, one text at a time and without padding."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from tokenizers.processors import TemplateProcessing

from families.table import LANGUAGE
from qig.config.schema import Model, Outliers, TextEvaluation
from qig.data.python_docs import EVALUATION, content_hash, passages
from qig.errors import DataError, EvaluationError, NonFiniteError
from qig.evaluation.benchmark import evaluate
from qig.evaluation.corpora import Passage, passages_of, text_record, users_text
from qig.evaluation.texts import likelihoods
from qig.models.loading import load

TEXTS = ["the image shows a red 7", "a blue 4 and a green 5 are in row 1 column 2 of the picture . " * 3, "red blue"]
OPTIONS = {"tasks": [], "protocol": "plain", "batch_size": 3, "seed": 0, "nll": True}


def of_python(window: int) -> TextEvaluation:
    return TextEvaluation("python_docs", window, None, None, "test", "text")


def of_path(path, window: int = 8, **others) -> TextEvaluation:
    return TextEvaluation(**{"corpus": "mine", "window": window, "path": str(path), "name": None, "split": "test",
                             "text_column": "text", **others})  # fmt: skip


def passage(tokenizer, text: str, window: int) -> Passage:
    found = tokenizer(text, truncation=True, max_length=window, return_special_tokens_mask=True)
    added = torch.tensor(found["special_tokens_mask"]).bool()
    return Passage(text, text, "text", torch.tensor(found["input_ids"]), added)


def likelihoods_of(loaded, texts, window: int):
    tokenizer = loaded.processor.tokenizer
    return likelihoods(loaded.model, [passage(tokenizer, text, window) for text in texts], tokenizer.pad_token_id)


def own_loss(model, ids) -> float:
    """transformers shifts the labels."""
    ids = torch.as_tensor(ids)[None]
    with torch.no_grad():
        return float(model(input_ids=ids, labels=ids).loss)


def language_model(folder):
    return load(Model("x", str(folder), "float32", Outliers(0.0, 0)), torch.device("cpu"))


@pytest.mark.parametrize("name", LANGUAGE)
@pytest.mark.parametrize("window", [6, 1000])
def test_each_text_by_itself(family_checkpoint, name, window):
    loaded = language_model(family_checkpoint(name))
    found = likelihoods_of(loaded, TEXTS, window)
    for text, (nll, right) in zip(TEXTS, found, strict=True):
        ids = torch.tensor(loaded.processor.tokenizer(text)["input_ids"][:window])[None]
        with torch.no_grad():
            output = loaded.model(input_ids=ids, labels=ids)  # transformers shifts the labels
        assert nll == pytest.approx(float(output.loss), rel=1e-5)
        expected = (output.logits[0, :-1].argmax(-1) == ids[0, 1:]).float().mean()
        assert right == pytest.approx(float(expected))


@pytest.mark.parametrize("window", [6, 1000])
def test_a_token_that_the_tokenizer_puts_at_the_end_is_not_asked_for(family_checkpoint, window):
    loaded = language_model(family_checkpoint("llama"))
    tokenizer = loaded.processor.tokenizer
    plain = [tokenizer(text)["input_ids"][: window - 1] for text in TEXTS]  # one of the window is the token at the end
    end = (tokenizer.eos_token, tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(f"$A {end[0]}", special_tokens=[end])
    assert tokenizer("red")["input_ids"][-1] == tokenizer.eos_token_id
    for ids, (nll, _) in zip(plain, likelihoods_of(loaded, TEXTS, window), strict=True):
        assert nll == pytest.approx(own_loss(loaded.model, ids), rel=1e-5)


@pytest.mark.parametrize("name", ["tiny_qwen2_vl", "tiny_llava_onevision", "tiny_internvl"])
def test_running_text_beside_questions(untrained, name):
    """A vision-language model reads it, too; each task has its own records and numbers."""
    model, processor = untrained(name)
    text = of_python(24)
    found = evaluate(model, processor, text=text, limit=2, **OPTIONS | {"tasks": ["qig_digitgrid"]})
    assert [sample["task"] for sample in found.samples] == ["qig_digitgrid"] * 2 + ["python_docs"] * 2
    assert {task: values["n"] for task, values in found.metrics.items()} == {"qig_digitgrid": 2, "python_docs": 2}
    assert found.protocol["name"] == "plain" and found.protocol["text"]["window"] == 24
    for passage, sample in zip(passages(EVALUATION), found.samples[2:], strict=False):
        ids = processor.tokenizer(passage.text)["input_ids"][:24]
        assert sample["nll"] == pytest.approx(own_loss(model, ids), rel=1e-4)


def test_a_text_without_a_second_token_is_refused(family_checkpoint):
    loaded = language_model(family_checkpoint("llama"))
    with pytest.raises(EvaluationError, match="7: expected a text of two tokens or more, got 1"):
        likelihoods_of(loaded, ["red blue", "7"], 10)


def test_evaluation_of_running_text(family_checkpoint):
    loaded = language_model(family_checkpoint("llama"))
    text = of_python(32)
    result = evaluate(loaded.model, loaded.processor, text=text, limit=5, **OPTIONS)
    chosen = passages(EVALUATION)[:5]
    assert [sample["sample"] for sample in result.samples] == [passage.name for passage in chosen]
    assert [sample["cluster"] for sample in result.samples] == [passage.document for passage in chosen]
    assert [sample["type"] for sample in result.samples] == [passage.name.split("/")[0] for passage in chosen]
    pairs = [likelihoods_of(loaded, [passage.text], 32)[0] for passage in chosen]
    alone, right = ([pair[place] for pair in pairs] for place in (0, 1))
    assert [sample["score"] for sample in result.samples] == right and max(right) <= 1
    assert [sample["nll"] for sample in result.samples] == pytest.approx(alone, rel=1e-5)
    metrics = result.metrics["python_docs"]
    assert metrics["nll"] == pytest.approx(sum(alone) / 5)
    assert metrics["metric"] == "top1" and metrics["accuracy"] == pytest.approx(sum(right) / 5)
    assert result.protocol["text"] == {"corpus": "python_docs", "window": 32, "sha256": content_hash(EVALUATION)}


def test_nothing_to_evaluate_on_is_refused(family_checkpoint):
    with pytest.raises(EvaluationError, match=r"got tasks \[\]"):
        evaluate(None, None, text=None, limit=5, **OPTIONS)


def test_a_passage_whose_likelihood_is_no_number_is_named(family_checkpoint):
    loaded = language_model(family_checkpoint("llama"))
    third = loaded.processor(text=[passages(EVALUATION)[2].text], return_tensors="pt")["input_ids"][0][:32].tolist()

    def hook(_module, args, kwargs, output):
        for row, ids in enumerate(kwargs["input_ids"].tolist()):
            if ids[:20] == third[:20]:
                output.logits[row] = torch.nan
        return output

    handle = loaded.model.register_forward_hook(hook, with_kwargs=True)
    try:
        with pytest.raises(NonFiniteError, match=f"likelihoods at sample {passages(EVALUATION)[2].name}:"):
            evaluate(loaded.model, loaded.processor, text=of_python(32), limit=5, **OPTIONS)
    finally:
        handle.remove()


def test_a_text_of_the_users_is_read_in_windows_from_one_end_to_the_other(family_checkpoint, tmp_path):
    """Against the published recipe: all tokens in one row, cut by the window, transformers' loss of each."""
    loaded = language_model(family_checkpoint("llama"))
    content = "\n\n".join(TEXTS * 3)
    (tmp_path / "mine.txt").write_text(content)
    found = evaluate(loaded.model, loaded.processor, text=of_path(tmp_path / "mine.txt"), limit=None, **OPTIONS)
    ids = loaded.processor.tokenizer(content)["input_ids"]
    windows = [ids[8 * i : 8 * (i + 1)] for i in range(len(ids) // 8)]
    assert len(windows) > 5 and len(ids) % 8  # what is left over is dropped
    expected = [own_loss(loaded.model, window) for window in windows]
    assert [sample["nll"] for sample in found.samples] == pytest.approx(expected, rel=1e-5)
    assert found.metrics["mine"]["nll"] == pytest.approx(sum(expected) / len(expected))
    assert [sample["sample"] for sample in found.samples] == [f"mine#{i}" for i in range(len(windows))]
    assert all(one["cluster"] == one["sample"] and (one["task"], one["type"]) == ("mine", "") for one in found.samples)
    few = evaluate(loaded.model, loaded.processor, text=of_path(tmp_path / "mine.txt"), limit=2, **OPTIONS)
    assert [sample["sample"] for sample in few.samples] == ["mine#0", "mine#1"]


def test_a_token_that_the_tokenizer_puts_in_front_is_there_once(family_checkpoint, tmp_path):
    tokenizer = language_model(family_checkpoint("llama")).processor.tokenizer
    start = (tokenizer.eos_token, tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(f"{start[0]} $A", special_tokens=[start])
    (tmp_path / "mine.txt").write_text(TEXTS[1])
    first, second, *_ = passages_of(of_path(tmp_path / "mine.txt"), tokenizer, None)
    assert first.ids[0] == start[1] and first.added.tolist() == [True] + 7 * [False]
    assert start[1] not in second.ids and not second.added.any()


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_rows_of_a_table_are_joined_as_published(tmp_path, suffix):
    frame = pd.DataFrame({"text": ["", " = Head = \n", "one two"], "other": ["a", "b", "c"]})
    file = tmp_path / f"mine.{suffix}"
    frame.to_parquet(file) if suffix == "parquet" else frame.to_json(file, orient="records", lines=True)
    (tmp_path / "mine.txt").write_text("\n\n = Head = \n\n\none two")
    same = text_record(of_path(tmp_path / "mine.txt"))
    assert text_record(of_path(file)) == same != text_record(of_path(file, text_column="other"))


def test_a_text_is_taken_as_it_is_now(tmp_path):
    """With the line ends that it has, without a byte order mark, and anew where it has changed."""
    file = tmp_path / "mine.txt"
    file.write_bytes(b"\xef\xbb\xbfred\r\nblue\n")
    assert users_text(of_path(file)) == "red\r\nblue\n"
    before = text_record(of_path(file))
    file.write_bytes(b"green")
    assert users_text(of_path(file)) == "green" and text_record(of_path(file)) != before


def test_a_directory_has_no_split_to_ask_for(tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"text": "red"}\n{"text": "blue"}\n')
    assert users_text(of_path(tmp_path)) == "red\n\nblue"


def test_another_text_or_window_is_another_document(family_checkpoint, tmp_path):
    """What tables and cards look at before they pair two runs' windows, whose names are alike."""
    loaded = language_model(family_checkpoint("llama"))

    def documents(content: str, name: str, window: int = 8) -> dict[str, str]:
        (tmp_path / name).write_text(content)
        text = of_path(tmp_path / name, window)
        return evaluate(loaded.model, loaded.processor, text=text, limit=1, **OPTIONS).documents

    first = documents(TEXTS[1], "a.txt")
    assert list(first) == ["mine"] and first == documents(TEXTS[1], "b.txt")
    assert len({first["mine"], documents(TEXTS[1], "a.txt", 6)["mine"], documents(TEXTS[1] * 2, "a.txt")["mine"]}) == 3


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("absent.txt", None, "absent.txt' does not exist; expected a file, a directory, or a hub id"),
        ("latin.txt", b"caf\xe9", "latin.txt cannot be read: 'utf-8' codec"),
        ("empty.txt", b" \n", "expected a text, got an empty one"),
        ("half.jsonl", b'{"text": "red \\ud800"}', "cannot be read: 'utf-8' codec can't encode"),
        ("short.txt", b"red blue", "its 3 tokens are fewer than evaluation.text.window=8"),
        ("mine.jsonl", b'{"texts": "red"}', r"unknown column 'text' \(did you mean 'texts'"),
        ("mine.jsonl", b'{"text": "red"}\n{"text": null}', "evaluation.text.text_column=text: expected text in every"),
        ("mine.md", b"red", "unknown kind of file '.md'"),
    ],
)
def test_a_text_that_cannot_be_had_is_told(family_checkpoint, tmp_path, name, content, told):
    tokenizer = language_model(family_checkpoint("llama")).processor.tokenizer
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=told):
        passages_of(of_path(tmp_path / name), tokenizer, None)
