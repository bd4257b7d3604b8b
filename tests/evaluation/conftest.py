import pytest


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny models gain nothing from threads, and lose much where the cores are shared."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", autouse=True)
def pillow_as_before():
    """lmms-eval, where a test imports it outside of an evaluation, lets Pillow read truncated pictures for good."""
    from PIL import Image, ImageFile

    before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    yield
    ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = before


@pytest.fixture(scope="session")
def questions():
    """20 questions about DigitGrid's pictures, of all types."""
    from qig.data.digitgrid import evaluation_set

    return evaluation_set(seed=5, images=12, per_type=4)[:20]


@pytest.fixture(scope="session")
def conversations(questions):
    return [
        [{"role": "user", "content": [{"type": "image", "image": q.image}, {"type": "text", "text": q.question}]}]
        for q in questions
    ]


@pytest.fixture(scope="session")
def targets(questions):
    """The answers, some lengthened, so that they differ in their number of tokens."""
    return [question.answer + " and red" * (index % 3) for index, question in enumerate(questions)]


@pytest.fixture(scope="session")
def untrained():
    """``untrained(name)``: a model with random weights and its processor, made once."""
    made = {}

    def make(name):
        if name not in made:
            from qig.models.tiny.build import build_model
            from qig.models.tiny.processors import build_processor

            made[name] = build_model(name, seed=4).eval(), build_processor(name)
        return made[name]

    return make


@pytest.fixture(params=["tiny_qwen2_vl", "tiny_llava_onevision", "tiny_internvl"])
def model_and_processor(request, untrained):
    return untrained(request.param)


@pytest.fixture
def internvl(untrained):
    return untrained("tiny_internvl")
