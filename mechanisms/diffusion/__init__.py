"""Diffusion models of images: schedule <- denoiser <- predictor <- guidance, solvers, code <- mechanism."""

from mechanisms.diffusion.anticausal import Anticausal
from mechanisms.diffusion.backbones import Backbone, DiT, UNet
from mechanisms.diffusion.classifier import Classifier
from mechanisms.diffusion.code import Code
from mechanisms.diffusion.distillation import Distilled, Jumps
from mechanisms.diffusion.guidance import ClassifierFree, Factual, Guidance
from mechanisms.diffusion.latents import Autoencoder, LatentDiffusion
from mechanisms.diffusion.mechanism import Diffusion, DiffusionMechanism
from mechanisms.diffusion.predictor import ResNet
from mechanisms.diffusion.pretrained import Pretrained
from mechanisms.diffusion.schedule import DDPMGrid, Grid, KarrasGrid, LogGrid
from mechanisms.diffusion.solvers import BELM, DDIM, DDPM, Anchored, Leaves, NoiseEstimate, Solver
from mechanisms.diffusion.trained_levels import TrainedGrid, TrainedLevels
from mechanisms.encoders import Encoder, Strided

__all__ = [
    "Anchored",
    "Anticausal",
    "Autoencoder",
    "BELM",
    "Backbone",
    "Classifier",
    "ClassifierFree",
    "Code",
    "DDIM",
    "DDPM",
    "DDPMGrid",
    "DiT",
    "Diffusion",
    "DiffusionMechanism",
    "Distilled",
    "Encoder",
    "Factual",
    "Grid",
    "Guidance",
    "Jumps",
    "KarrasGrid",
    "LatentDiffusion",
    "Leaves",
    "LogGrid",
    "NoiseEstimate",
    "Pretrained",
    "ResNet",
    "Solver",
    "Strided",
    "TrainedGrid",
    "TrainedLevels",
    "UNet",
]
