"""What metrics accept as images and classes, and what they say to anything else."""

import numpy as np
import pytest
import torch

from causalgen.metrics.image_rows import check_same_rows, class_codes, image_rows, rows_of_class
from graphs.errors import DataError, DomainError, ShapeError
from graphs.variables import Image


def test_bytes_and_floats_are_the_same_images():
    bytes_ = np.random.default_rng(0).integers(0, 256, (3, 1, 4, 4), dtype=np.uint8)
    made = image_rows(bytes_, where="Images")
    assert made.dtype == torch.float32
    assert torch.equal(made, image_rows(bytes_ / np.float32(255), where="Images"))
    assert torch.equal(made, image_rows(torch.from_numpy(bytes_[:, 0]), where="Images"))


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.full((2, 1, 4, 4), 200.0), DomainError, "uint8 for 0..255, or divide by 255"),
        (np.full((2, 1, 4, 4), -1.0), DomainError, r"\(value \+ 1\) / 2"),
        (np.full((2, 1, 4, 4), np.nan), DomainError, "row 0"),
        (np.zeros((2, 1, 4, 4), dtype=int), DomainError, "uint8"),
        (np.eye(4, dtype=np.uint8).reshape(1, 1, 4, 4), DomainError, "the largest value here is 1"),
        (np.zeros((0, 1, 4, 4)), DataError, "empty"),
        (np.zeros((4, 4)), ShapeError, r"image\[None\]"),
        (np.zeros((2, 1, 8, 8)), ShapeError, "4"),
    ],
)
def test_wrong_images_are_refused(images, error, message):
    with pytest.raises(error, match=f"The pictures.*{message}"):
        image_rows(images, where="The pictures", image=Image(1, 4, 4))


def test_classes_are_whole_numbers_of_known_classes():
    assert class_codes([0.0, 2.0], where="Classes", count=3).tolist() == [0, 2]
    for bad in ([0, 3], [0, -1], [0, 0.5], [0, np.nan]):
        with pytest.raises(DomainError, match=r"row 1 .*0\.\.2"):
            class_codes(bad, where="Classes", count=3)
    with pytest.raises(ShapeError, match="a code a row"):
        class_codes([[0, 1]], where="Classes")


def test_rows_must_agree_and_classes_need_enough():
    check_same_rows(one=[1, 2], two=[3, 4])
    with pytest.raises(ShapeError, match="one 2, two 1"):
        check_same_rows(one=[1, 2], two=[3])
    codes = np.array([0, 1, 0])
    assert rows_of_class(codes, 0, fewest=2, where="Real").tolist() == [0, 2]
    with pytest.raises(DataError, match="Real: class 1 has 1 images, expected at least 2"):
        rows_of_class(codes, 1, fewest=2, where="Real")
