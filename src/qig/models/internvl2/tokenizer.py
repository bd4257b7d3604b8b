"""The published tokenizers, rebuilt from their own files: InternLM2's sentencepiece model, or Qwen2's merges."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from google.protobuf.message import DecodeError
from google.protobuf.runtime_version import VersionError
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import import_protobuf
from transformers.tokenization_utils_base import generate_merges

from qig.errors import ModelError
from qig.models.files import read_json
from qig.models.internvl2.original import Original
from qig.models.internvl2.prompts import IMAGE_TOKEN

SENTENCEPIECE = "tokenizer.model"
# The native processor asks for a video token, which the published vocabulary has not. A new one would have an id beyond
# the embeddings, so that a token which no prompt uses stands for it.
NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": IMAGE_TOKEN,
    "video_token": "<quad>",
}
_NORMAL, _USER_DEFINED = 1, 4  # piece types of sentencepiece_model.proto
_BPE = 2


def build_tokenizer(original: Original, directory: Path) -> PreTrainedTokenizerBase:
    """A fast tokenizer with the published ids, whose image tokens are attributes as the native processor needs them.

    Raises:
        ModelError: files that are absent, damaged or contradict each other, or a token without an embedding.
    """
    settings = _settings(directory)
    added = _added_tokens(directory, settings)
    published = {token.content: i for i, token in added.items()}
    absent = [token for token in (*NAMED.values(), "<|im_start|>", "<|im_end|>") if token not in published]
    if absent:
        raise ModelError(f"the tokenizer in {directory} has no {', '.join(absent)}: expected InternVL2's added tokens")
    tokenizer = _internlm2(directory, settings, added) if original.is_internlm2 else _qwen2(directory)
    for token, i in published.items():
        if tokenizer.convert_tokens_to_ids(token) != i:
            found = tokenizer.convert_tokens_to_ids(token)
            raise ModelError(
                f"{directory}: added token {token!r} should have id {i}, but its tokenizer gives it {found}"
            )
    last = max(tokenizer.get_vocab().values())
    if last >= original.text["vocab_size"]:
        raise ModelError(
            f"the tokenizer in {directory} has ids up to {last}, "
            f"the text model {original.text['vocab_size']} embeddings (vocab_size)"
        )
    # An assignment replaces the whole list, so that every special token without an attribute has to be in it.
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    known = {*NAMED.values(), tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token}
    tokenizer.add_special_tokens({"extra_special_tokens": [token for token in special if token not in known]})
    tokenizer.model_max_length = settings.get("model_max_length", tokenizer.model_max_length)
    return tokenizer


def _settings(directory: Path) -> dict:
    return read_json(directory / "tokenizer_config.json")


def _qwen2(directory: Path) -> PreTrainedTokenizerBase:
    if not (directory / "tokenizer.json").is_file():
        _refuse_absent(directory, "vocab.json", "merges.txt")
    try:
        # The class by name: no look at auto_map, no remote code.
        return Qwen2Tokenizer.from_pretrained(
            directory, local_files_only=True, extra_special_tokens=NAMED, padding_side="left"
        )
    except Exception as error:  # the tokenizers library raises plain Exception
        raise ModelError(f"the tokenizer in {directory} cannot be read: {error}") from error


def _internlm2(directory: Path, settings: dict, added: dict[int, AddedToken]) -> PreTrainedTokenizerFast:
    _refuse_absent(directory, SENTENCEPIECE)
    return PreTrainedTokenizerFast(
        tokenizer_object=_from_sentencepiece(directory, added),
        bos_token="<s>",
        eos_token="<|im_end|>",  # a turn's end, where the published chat() stops; </s> ends plain texts
        pad_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=NAMED,
        add_bos_token=settings.get("add_bos_token", True),
        add_eos_token=settings.get("add_eos_token", False),
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _refuse_absent(directory: Path, *names: str) -> None:
    absent = [name for name in names if not (directory / name).is_file()]
    if absent:
        raise ModelError(f"{directory} holds no {' and no '.join(absent)}, which its tokenizer is made of")


def _added_tokens(directory: Path, settings: dict) -> dict[int, AddedToken]:
    """Tokens that were added to the sentencepiece model, by id; some take the id of an unused piece."""
    try:
        return {int(i): AddedToken(**token) for i, token in settings["added_tokens_decoder"].items()}
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        file = directory / "tokenizer_config.json"
        raise ModelError(f"{file}: added_tokens_decoder cannot be read: {type(error).__name__}: {error}") from error


def _schema() -> ModuleType:
    try:
        return import_protobuf()
    except VersionError:  # sentencepiece's generated module can be newer than the installed protobuf
        from transformers.utils import sentencepiece_model_pb2_new

        return sentencepiece_model_pb2_new


def _from_sentencepiece(directory: Path, added: dict[int, AddedToken]) -> Tokenizer:
    file = directory / SENTENCEPIECE
    proto = _schema().ModelProto()
    try:
        proto.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise ModelError(f"{file} is not a sentencepiece model: {error}") from error
    if proto.trainer_spec.model_type != _BPE or not proto.trainer_spec.byte_fallback:
        raise ModelError(f"{file} is not a sentencepiece model of InternLM2's kind: expected BPE with byte fallback")
    pieces = {
        added[i].content if i in added else piece.piece: (i, piece.type, piece.score)
        for i, piece in enumerate(proto.pieces)
    }
    vocabulary = {piece: i for piece, (i, _, _) in pieces.items()}
    # Only ordinary pieces are made by merging.
    scores = {piece: score for piece, (_, kind, score) in pieces.items() if kind == _NORMAL}
    merges = generate_merges(vocabulary, scores)
    tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(_normalizers(proto.normalizer_spec))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    )
    literal = [piece for piece, (i, kind, _) in pieces.items() if kind == _USER_DEFINED and i not in added]
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in literal])
    tokenizer.add_tokens([added[i] for i in sorted(added)])
    return tokenizer


def _normalizers(spec) -> list[normalizers.Normalizer]:
    """What sentencepiece does to a text before it looks for pieces."""
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend("▁"))
    return [*steps, normalizers.Replace(" ", "▁")]
