"""Names that look like misspellings of names that are missing."""

import pytest

from graphs.errors import did_you_mean, near_misses


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ("Age", "age"),
        ("AGE ", "age"),
        ("blood pressure", "blood_pressure"),
        ("bloodPressure", "blood_pressure"),
        ("dsoe", "dose"),
        ("respone", "response"),
        ("thicknes", "thickness"),
        ("Size_0", "size_0"),
    ],
)
def test_misspelt_names_are_found(given, known):
    assert near_misses([given, "ward", "other"], [known, "ward"]) == [(given, known)]


@pytest.mark.parametrize(
    ("given", "known"),
    [("visit_2", "visit_1"), ("x11", "x10"), ("y", "x"), ("sex", "age"), ("", "_"), ("site", "dose")],
)
def test_other_names_are_not(given, known):
    assert near_misses([given], [known]) == []


def test_a_name_that_is_given_is_not_missed():
    assert near_misses(["age", "Age", "AGE"], ["age", "dose"]) == []
    assert near_misses([3, "age"], ["age", "dose"]) == []
    assert near_misses(["Place 0"], ["place", "place_0"]) == [("Place 0", "place_0")]
    assert near_misses(["age", "agee"], ["age", "agee"]) == []


def test_names_that_look_alike_are_told_apart():
    composed, apart = "P\u00e4diatrie", "Pa\u0308diatrie"
    looks = r" They look alike: 'Pa\u0308diatrie' and 'P\xe4diatrie'."
    assert did_you_mean(apart, [composed]) == f" Did you mean '{composed}'?{looks}"
    assert did_you_mean("Innre", ["Innere"]) == " Did you mean 'Innere'?"
