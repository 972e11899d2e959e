"""Data sets by name, as columns that ``scm.fit`` takes; nothing is ever downloaded.

colour_digits   MNIST in colour: an image that causes an image
faces           drawn portraits with known causes: their laws and images
mnist           handwritten digits, from their files
morphomnist     the same with stroke thickness and intensity as causes: its folder, its laws, its images
pendulum        drawn scenes of a pendulum and its shadow: their laws and images
synthetic       small sets that need no files, for examples and tests
"""

from causalgen.datasets.colour_digits import colour_digits, colour_digits_truth, colour_pictures, colours_of
from causalgen.datasets.faces import draw_faces, face_images, faces, faces_truth, grey_of
from causalgen.datasets.mnist import draw_attributes, intensity_of, mnist, morphomnist, morphomnist_truth
from causalgen.datasets.pendulum import draw_scenes, pendulum, pendulum_images, pendulum_truth, shadow_of
from causalgen.datasets.redrawing import morphomnist_images
from causalgen.datasets.synthetic import bars, measurements
from causalgen.datasets.writing import make_faces, make_morphomnist, make_pendulum

__all__ = [
    "bars",
    "colour_digits",
    "colour_digits_truth",
    "colour_pictures",
    "colours_of",
    "draw_attributes",
    "draw_faces",
    "draw_scenes",
    "face_images",
    "faces",
    "faces_truth",
    "grey_of",
    "intensity_of",
    "make_faces",
    "make_morphomnist",
    "make_pendulum",
    "measurements",
    "mnist",
    "morphomnist",
    "morphomnist_images",
    "morphomnist_truth",
    "pendulum",
    "pendulum_images",
    "pendulum_truth",
    "shadow_of",
]
