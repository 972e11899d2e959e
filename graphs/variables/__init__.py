"""What a node's values are: categories, whole numbers, real numbers or images. Never torch.

Every variable has an event shape and one canonical encoding, batch-first:

    variable      event shape   canonical encoding
    Categorical   ()            int64 codes 0..K-1
    Integer       ()            float64, whole
    Continuous    shape         float64, in data units
    Image         (C, H, W)     float32 in [-1, 1]

``encode`` turns what a user gives into it, checking everything, and ``encode_clipped`` moves what is out of
bounds onto the bound; ``decode`` turns it back.
Law: ``encode(decode(encode(x))) == encode(x)``, for images up to 1e-7. Both leave their input alone,
and what ``encode`` returns never shares memory with it unless told so. Row numbers in messages start at 0.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from graphs.variables.categorical import Categorical
from graphs.variables.image import Image
from graphs.variables.numeric import Continuous, Integer

__all__ = [
    "Categorical",
    "Continuous",
    "Image",
    "Integer",
    "Variable",
    "image_variables",
    "table_variables",
]

Variable = Annotated[
    Categorical | Continuous | Image | Integer, Field(discriminator="type", title="variable")
]
"""Any variable; in a file, told apart by ``type``."""


def image_variables(variables: Mapping[str, Variable]) -> dict[str, Image]:
    """Those whose values are images, by name and in their order."""
    return {name: variable for name, variable in variables.items() if isinstance(variable, Image)}


def table_variables(variables: Mapping[str, Variable]) -> dict[str, Variable]:
    """Those whose values are no images, by name and in their order."""
    return {name: variable for name, variable in variables.items() if not isinstance(variable, Image)}
