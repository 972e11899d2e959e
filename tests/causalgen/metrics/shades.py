"""A model of images whose every metric is known: ``image = pattern + shade / 4``, the pattern without mean.

The shade is four times the mean pixel less 1/2, exactly, so that effectiveness, reversibility and the true
counterfactual can be told by hand. ``keeps`` spoils it: the noise is multiplied by it in each pass.
``redraws`` makes abduction draw the right half of the pattern anew, which is half of its variance.
"""

from typing import Literal

import networkx as nx
import numpy as np

import causalgen as cg
from mechanisms.base import Abducted, Mechanism, MechanismSpec, Noise

SIDE = 6


class Tinted(MechanismSpec, frozen=True):
    kind: Literal["tinted"] = "tinted"
    keeps: float = 1.0
    moves: bool = True
    cause: str = "shade"
    redraws: bool = False

    def make(self, variable, parents):
        return TintedMechanism(self, variable, parents)


class TintedMechanism(Mechanism):
    abduction = "exact"
    spec: Tinted

    def __init__(self, spec, variable, parents):
        super().__init__(spec, variable, parents)
        self.deterministic = not spec.redraws

    def sample_noise(self, n, *, generator):
        return Noise(n, {"pattern": self._mean(n, generator)})

    def _mean(self, n, generator):
        from torch import rand

        pattern = 0.2 * rand(n, *self.variable.event_shape, generator=generator)
        return pattern - pattern.mean((1, 2, 3), keepdim=True)

    def generate(self, parents, noise):
        return self.spec.keeps * noise["pattern"] + self._tint(parents)

    def abduct(self, value, parents, *, generator):
        pattern = value - self._tint(parents)
        if self.spec.redraws:
            half = SIDE // 2
            pattern[..., half:] = self._mean(len(value), generator)[..., half:]
        return Abducted(Noise(len(value), {"pattern": pattern}))

    def _tint(self, parents):
        # Canonical pixels are twice the outer ones: half a shade there is a quarter here.
        tint = parents[self.spec.cause].float() / 2
        return (tint if self.spec.moves else 0 * tint).view(-1, 1, 1, 1)


def shades(**options):
    """kind -> shade -> image; kind 1 is lighter."""
    return cg.SCM(
        nx.DiGraph([("kind", "shade"), ("shade", "image"), ("kind", "image")]),
        variables={
            "kind": cg.Categorical(2),
            "shade": cg.Continuous(lower=-1.5, upper=1.5, unit="tints"),
            "image": cg.Image(1, SIDE, SIDE),
        },
        mechanisms={"shade": cg.mechanisms.Additive(), "image": Tinted(**options)},
    )


def rows(n=60, seed=0):
    random = np.random.default_rng(seed)
    kind = random.integers(0, 2, n)
    shade = np.clip(0.4 * kind - 0.2 + 0.2 * random.normal(size=n), -1, 1)
    pattern = 0.1 * random.random((n, 1, SIDE, SIDE))
    pattern -= pattern.mean((1, 2, 3), keepdims=True)
    image = (0.5 + pattern + shade[:, None, None, None] / 4).astype(np.float32)
    return {"kind": kind, "shade": shade, "image": image}


def shade_of(images):
    """The shade that an image has."""
    return 4 * (np.asarray(images, dtype=float).mean((1, 2, 3)) - 0.5)
