"""The model as lmms-eval sees it: an object in memory, or a checkpoint named on lmms-eval's own command line."""

from __future__ import annotations

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.utils import Collator
from loguru import logger
from tqdm import tqdm

from qig.errors import EvaluationError

from .generation import generate_answers
from .prompts import Conversation, as_conversation


class QigChatModel(lmms):
    """Answers the requests of lmms-eval's chat tasks with any Hugging Face image-text-to-text model.

    Either ``model`` and ``processor``, which stay on their device, or ``checkpoint``, a directory with a Hugging Face
    model or a quantized run, which is loaded onto ``device`` (by default the accelerator, where there is one).
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

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """One answer a request, in the order of the requests; a failure is raised, never an empty answer."""
        # Longest first, so that a batch too large for the memory fails at once.
        collator = Collator(
            [request.args for request in requests],
            sort_fn=lambda arguments: -len(arguments[0]),
            group_fn=lambda arguments: arguments[2],
            grouping=True,
        )
        answers: list[str] = []
        with tqdm(total=len(requests), desc="answers", unit="question", disable=self.rank != 0 or None) as progress:
            for batch in collator.get_batched(n=self.batch_size):
                conversations = [self.conversation(arguments) for arguments in batch]
                answers += generate_answers(self.model, self.processor, conversations, options=batch[0][2])
                progress.update(len(batch))
        if empty := sum(not answer for answer in answers):
            logger.warning(f"{empty} of {len(answers)} answers are empty")
        return collator.get_original(answers)

    def conversation(self, arguments: tuple) -> Conversation:
        """The turns of one request, images loaded; ``arguments`` are those of a chat task's request."""
        _, doc_to_messages, _, doc_id, task, split = arguments
        return as_conversation(doc_to_messages(self.task_dict[task][split][doc_id]))

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError("lmms-eval's chat tasks ask for no likelihood; use qig.evaluation.likelihood")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError("tasks of several rounds are not supported")

    def clean(self) -> None:
        """Keep the model: lmms-eval would delete it after the answers, and it is still needed for likelihoods."""


def _load(checkpoint: str, device: str | None):
    import torch

    from qig.quantized import load_checkpoint

    if device is None:
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    loaded = load_checkpoint(checkpoint, torch.device(device))
    return loaded.model, loaded.processor
