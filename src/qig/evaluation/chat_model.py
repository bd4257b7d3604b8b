"""The model as lmms-eval sees it: an object in memory, or a checkpoint named on lmms-eval's own command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.utils import Collator
from loguru import logger
from PIL.Image import DecompressionBombError
from tqdm import tqdm

from qig.errors import DataError, EvaluationError, NonFiniteError

from .generation import generate_answers, own_randomness
from .journal import Journal
from .overheard import overheard
from .parallel import own_device
from .prompts import Conversation, chat_conversation, pictures_of, simple_conversation
from .protocols import protocol_of
from .ranks import ALONE, Ranks


class Answered(Exception):
    """Ends lmms-eval's part in a process that only helped to answer: one process judges the answers."""


class QigChatModel(lmms):
    """Answers the requests of lmms-eval's tasks with any Hugging Face image-text-to-text model.

    Either ``model`` and ``processor``, which stay on their device, or ``checkpoint``, a directory with a Hugging Face
    model or a quantized run, which is loaded onto ``device`` (by default this process's accelerator, if there is one).
    ``protocol`` is a name that :func:`~qig.evaluation.protocols.protocol_of` knows. ``ranks`` are the processes that
    answer the same requests together; under lmms-eval's command line each process has requests of its own.
    ``journal`` keeps the answers of finished batches. ``right_answer`` of a task's name and a document's number, if it
    is set, is what the model is to say: where it does, ``likelihoods`` of the two holds its negative log-likelihood.
    """

    is_simple = False

    def __init__(
        self,
        checkpoint: str | None = None,
        *,
        model=None,
        processor=None,
        batch_size: int | str = 1,
        device: str | None = None,
        protocol: str = "plain",
        ranks: Ranks = ALONE,
        journal: Journal | None = None,
    ) -> None:
        super().__init__()
        if checkpoint is not None and model is None and processor is None:
            model, processor = _load(checkpoint, device)
        elif checkpoint is not None or model is None or processor is None:
            got = {"checkpoint": checkpoint, "model": model, "processor": processor}
            given = [name for name, value in got.items() if value is not None]
            raise EvaluationError(f"got {given or 'nothing'}; expected checkpoint, or model and processor")
        self.model = model.eval()
        self.processor = processor
        self.batch_size = int(batch_size)
        self.protocol = protocol_of(protocol, model.config.model_type)
        self.is_simple = self.protocol.requests == "simple"
        self.ranks = ranks
        self.journal = journal or Journal(None)
        self.right_answer: Callable[[str, int], str | None] = lambda _task, _doc_id: None
        self.likelihoods: dict[tuple[str, int], float] = {}

    @property
    def device(self):
        """Where lmms-eval may gather numbers of several processes."""
        return self.model.device

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """One answer a request, in the order of the requests; a failure is raised, never an empty answer."""
        collator = Collator(
            [request.args for request in requests],
            sort_fn=longest_first,
            group_fn=_options,
            grouping=True,
        )
        batches = list(collator.get_batched(n=self.batch_size))
        quiet = self.rank != 0 or not self.ranks.is_main
        with tqdm(total=len(batches), desc="answers", unit="batch", disable=quiet or None) as progress:

            def answer(number: int, batch: list[tuple]) -> list[tuple[str, float | None]]:
                conversations = [self.conversation(arguments) for arguments in batch]
                right = [self.right_answer(task, doc_id) for *_, doc_id, task, _split in batch]
                with (
                    own_randomness(number, self.device),
                    documents_named(batch),
                    overheard(self.model, self.processor, conversations, right) as nll,
                ):
                    texts = generate_answers(
                        self.model, self.processor, conversations, _options(batch[0]), self.protocol
                    )
                return list(zip(texts, nll, strict=True))

            kept = self.journal.kept("answers", document_names, answer)

            def work(numbered: tuple[int, list[tuple]]) -> list[tuple[str, float | None]]:
                done = kept(numbered)
                progress.update(self.ranks.size)
                return done

            found = [each for some in self.ranks.spread(list(enumerate(batches)), work) for each in some]
        for (*_, doc_id, task, _split), (_, nll) in zip(chain.from_iterable(batches), found, strict=True):
            if nll is not None:
                self.likelihoods[task, doc_id] = nll
        answers = [text for text, _ in found]
        if not self.ranks.is_main:
            raise Answered
        if empty := sum(not answer for answer in answers):
            logger.warning(f"{empty} of {len(answers)} answers are empty")
        return collator.get_original(answers)

    def conversation(self, arguments: tuple) -> Conversation:
        """What the model is asked by one request, pictures loaded; ``arguments`` are those of the request.

        Raises:
            EvaluationError: a picture cannot be read; names the task and the document.
        """
        try:
            conversation = self._conversation(arguments)
            for image in pictures_of(conversation):
                image.load()  # pictures of a data set are decoded when they are looked at
            return conversation
        except (OSError, SyntaxError, DecompressionBombError, DataError) as error:
            doc_id, task, split = arguments[3:]
            raise EvaluationError(
                f"a picture of task {task!r}, split {split!r}, document {doc_id} cannot be read: {error}"
            ) from error

    def _conversation(self, arguments: tuple) -> Conversation:
        if callable(arguments[1]):
            _, doc_to_messages, _, doc_id, task, split = arguments
            return chat_conversation(doc_to_messages(self.task_dict[task][split][doc_id]), self.protocol)
        text, _, doc_to_visual, doc_id, task, split = arguments
        return simple_conversation(doc_to_visual(self.task_dict[task][split][doc_id]) or [], text, self.protocol)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError("lmms-eval's chat tasks ask for no likelihood; use qig.evaluation.likelihood")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError("tasks of several rounds are not supported")

    def clean(self) -> None:
        """Keep the model: lmms-eval would delete it after the answers, and it is still needed for likelihoods."""


def longest_first(arguments: tuple) -> int:
    """Where a request stands in the order of answering: a batch too large for the memory then fails at once.

    Lengths are compared in steps of 64 characters, and what is equal stays in the documents' order: questions about one
    picture, which stand together there, come into one batch.
    """
    return -(len(arguments[0]) // 64)


def document_names(batch: list[tuple]) -> list:
    """What a batch's requests ask: task, split and number of each document, and how answers are generated."""
    return [*((task, split, doc_id) for *_, doc_id, task, split in batch), repr(_options(batch[0]))]


@contextmanager
def documents_named(batch: Sequence[tuple]) -> Iterator[None]:
    """A NonFiniteError within names the document instead of its row; ``batch`` are the arguments of its requests."""
    try:
        yield
    except NonFiniteError as error:
        doc_id, task, split = batch[int(error.sample)][3:]
        name = f"{doc_id} of task {task!r}, split {split!r}"
        raise NonFiniteError(error.what, error.found, sample=name) from error


def _options(arguments: tuple) -> dict:
    """A request's generation arguments, which a chat task gives after a function that makes messages."""
    return arguments[2] if callable(arguments[1]) else arguments[1]


def _load(checkpoint: str, device: str | None):
    from qig.devices import device_name
    from qig.quantized import load_checkpoint

    loaded = load_checkpoint(checkpoint, own_device(device or device_name("auto")))
    return loaded.model, loaded.processor
