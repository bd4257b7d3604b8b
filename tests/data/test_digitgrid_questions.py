"""Every question type against an independent reading of the scene as a list of facts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qig.data.digitgrid import COLORS, QUESTION_TYPES, VOCABULARY, Scene, SceneSampler, ask, encode
from qig.errors import DataError


def read(scene: Scene, text: str) -> list[str]:
    """All answers that the scene allows to a question, found from its words by brute force over (row, column) facts."""
    facts = {
        (row, column): (int(scene.digits[3 * row + column]), int(scene.colors[3 * row + column]))
        for row in range(3)
        for column in range(3)
    }
    filled = {place: fact for place, fact in facts.items() if fact[0] >= 0}
    words = text.split()
    subject = words[-2]

    def places_of(word: str) -> list[tuple[int, int]]:
        if word in COLORS:
            return [place for place, (_, color) in filled.items() if COLORS[color] == word]
        if word.isdigit():
            return [place for place, (digit, _) in filled.items() if digit == int(word)]
        return [(int(word[1]) - 1, int(word[3]) - 1)]

    def digit(place):
        return str(facts[place][0]) if place in filled else "none"

    def color(place):
        return COLORS[facts[place][1]] if place in filled else "none"

    if text == "how many digits ?":
        return [str(len(filled))]
    if text.startswith("how many"):
        return [str(len(places_of(subject)))]
    if text.startswith("is there"):
        return ["yes" if places_of(subject) else "no"]
    places = places_of(subject)
    if "right of" in text:
        return [digit((row, column + 1)) for row, column in places if column < 2]
    if text.startswith("where"):
        return [f"r{row + 1}c{column + 1}" for row, column in places]
    return [digit(place) if words[1] == "digit" else color(place) for place in places]


@pytest.mark.parametrize("type", QUESTION_TYPES)
def test_sampled_questions_have_exactly_one_right_answer(type):
    sampler = SceneSampler("train", 11)
    asked = 0
    for _ in range(150):
        scene = sampler.sample()
        question = ask(scene, type, sampler.rng)
        if question is None:
            continue
        asked += 1
        assert question.type == type
        assert read(scene, question.text) == [question.answer]
        encode(f"{question.text} {question.answer}")
    assert asked > 100


@st.composite
def scenes(draw) -> Scene:
    """Any layout at all, also the empty and the full grid and layouts the sampler never draws."""
    count = draw(st.integers(1, 9))
    cells = draw(st.permutations(range(9)))[:count]
    digits, colors = np.full(9, -1), np.full(9, -1)
    digits[cells] = draw(st.permutations(range(10)))[:count]
    colors[cells] = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    return Scene(digits=digits, colors=colors, image=np.zeros((48, 48, 3), np.uint8))


@given(scene=scenes(), type=st.sampled_from(QUESTION_TYPES), seed=st.integers(0, 2**16))
def test_any_layout_gives_a_unique_answer_or_no_question(scene, type, seed):
    question = ask(scene, type, np.random.default_rng(seed))
    if question is not None:
        assert read(scene, question.text) == [question.answer]
        assert question.answer in VOCABULARY


@given(scene=scenes(), type=st.sampled_from(QUESTION_TYPES), seed=st.integers(0, 2**16))
def test_asking_is_deterministic(scene, type, seed):
    assert ask(scene, type, np.random.default_rng(seed)) == ask(scene, type, np.random.default_rng(seed))


def test_unknown_type_suggests_the_nearest():
    scene = SceneSampler("train", 0).sample()
    with pytest.raises(DataError, match="did you mean 'exists'"):
        ask(scene, "exist", np.random.default_rng(0))
