"""Scenario prompts: names, texts and nothing."""

import pytest

from astra_gym.actions import MODALITIES
from astra_gym.prompts import scenario_of


@pytest.mark.parametrize("name", MODALITIES)
def test_a_name_is_itself(name):
    assert scenario_of(name, list(MODALITIES)) == name


@pytest.mark.parametrize(
    ("text", "scenario"),
    [
        ("A red racing car on a winding road", "drive"),
        ("the robot arm pushes a block", "manipulation"),
        ("flying through the gates", "drone"),
        ("walk through a furnished room", "camera"),
    ],
)
def test_a_text_speaks_of_a_scenario(text, scenario):
    assert scenario_of(text, list(MODALITIES)) == scenario


@pytest.mark.parametrize("nothing", ["", " "])
def test_no_words_tell_nothing(nothing):
    assert scenario_of(nothing, list(MODALITIES)) is None


@pytest.mark.parametrize("prompt", ["a ship at sea", "a car in a room", "123", "дрон", None, 3])
def test_what_speaks_of_none_or_of_two_is_refused(prompt):
    with pytest.raises(ValueError, match="^prompt: got"):
        scenario_of(prompt, list(MODALITIES))


def test_a_world_that_lacks_the_scenario_refuses_it():
    with pytest.raises(ValueError, match="^prompt: got 'drone'"):
        scenario_of("drone", ["drive"])
