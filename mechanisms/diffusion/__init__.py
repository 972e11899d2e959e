"""Diffusion mechanisms: schedule <- denoiser <- predictor <- guidance, solvers <- mechanism."""

from mechanisms.diffusion.anticausal import Anticausal
from mechanisms.diffusion.classifier_free import ClassifierFree
from mechanisms.diffusion.mechanism import Diffusion, DiffusionMechanism
from mechanisms.diffusion.schedule import DDPMGrid, KarrasGrid, LogGrid
from mechanisms.diffusion.solvers import BELM, DDIM, DDPM, Anchored

__all__ = [
    "Anchored",
    "Anticausal",
    "BELM",
    "ClassifierFree",
    "DDIM",
    "DDPM",
    "DDPMGrid",
    "Diffusion",
    "DiffusionMechanism",
    "KarrasGrid",
    "LogGrid",
]
