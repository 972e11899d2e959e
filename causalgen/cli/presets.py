"""Presets of diffusion nodes: posterior abduction, an edit, Diff-SCM's inference (Sanchez & Tsaftaris 2022).

Used as ``scm.with_options(node, **PRESETS[name])``. ``posterior`` is Pearl's abduction: the noise behind an
image is drawn, not inverted to a point, and decoded along the denoiser as it was learned, without guidance
(weight 1); levels go up to 80, where nothing of the old parents is left in the noise. ``edit`` inverts the
image to a point and follows strong guidance against hidden parents: one answer, the surest of what was asked
for, and too much alike to average over.

``diff-scm`` is Diff-SCM's inference (Sanchez & Tsaftaris 2022, Algorithm 3): an unconditional denoiser, DDIM
on the first 75 of 100 levels respaced from 1000 with linear betas, and the raw gradient of an anticausal
predictor at s = 1 on every row. Derived work prints sqrt(a) where DDIM has sqrt(1 - a), and the released code
encodes to one level and decodes from another, clipping in between: here the formula is DDIM's, encoding and
decoding walk the same levels, and nothing is clipped. A style code, which the method has not, is hidden.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from graphs.errors import UnknownNameError

__all__ = ["PRESETS", "preset_options"]

PRESETS = MappingProxyType(
    {
        "diff-scm": {
            "abduction": "point",
            "centred": False,
            "code": {"hidden": True},
            "solver": {"kind": "ddim", "steps": 75, "grid": {"kind": "ddpm"}, "thresholding": False},
            "guidance": {"kind": "anticausal", "form": "raw", "scale": 1.0, "denoiser": "unconditional"},
        },
        "edit": {
            "abduction": "point",
            "solver": {
                "kind": "anchored",
                "steps": 12,
                "grid": {"kind": "log", "sigma_min": 0.1},
                "thresholding": True,
            },
            "guidance": {
                "kind": "classifier_free",
                "weight": 6.0,
                "against": "hidden",
                "interval": (1.5, 20.0),
            },
        },
        "posterior": {
            "abduction": "posterior",
            "solver": {
                "kind": "anchored",
                "steps": 12,
                "grid": {"kind": "karras", "sigma_min": 0.1},
                "thresholding": False,
            },
            "guidance": {"kind": "classifier_free", "weight": 1.0, "against": "factual", "interval": None},
        },
    }
)


def preset_options(name: str) -> dict[str, Any]:
    """Options of a preset, for a diffusion node."""
    UnknownNameError.check("preset", name, PRESETS)
    return dict(PRESETS[name])
