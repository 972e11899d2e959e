"""A pretrained pipeline as a mechanism: diffusers' DiT, U-Net or flow-matching transformer, from its folder.

    network's class and config     backbone ``pretrained``, whose weights are never trained
    scheduler                      the levels it was trained on, and what it predicts (``trained_levels``)
    vae                            the autoencoder (``latents``): the walk is through latents
    classes                        one categorical parent, in the network's order; its null class, the last
                                   embedding, is our hidden parent; without classes all parents are hidden
    learned variances              the second half of its output, dropped: solvers here are deterministic

A folder is local. One on the Hugging Face Hub is downloaded where it is asked for by its commit, of which
only configs, cards and safetensors. What is saved afterwards is an ordinary model, without the folder's path.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, final

from pydantic import Field, model_validator
from torch import Tensor, nn

from graphs.errors import CheckpointError, MechanismError
from graphs.variables import Categorical, Variable
from mechanisms.base import Mechanism
from mechanisms.diffusion import diffusers_folder as folders
from mechanisms.diffusion.backbones import Backbone
from mechanisms.diffusion.classifier import OwnPredictor, is_classifier
from mechanisms.diffusion.latents import AutoencoderNetwork
from mechanisms.diffusion.solvers import Solver
from mechanisms.diffusion.trained_levels import TrainedGrid, TrainedLevels, scheduler_options
from mechanisms.hub import check_commit, hub_errors, is_commit
from mechanisms.options import merge_options

__all__ = [
    "Pretrained",
    "PretrainedNetwork",
    "hub_pipeline",
    "pipeline_options",
    "said_by_pipeline",
    "take_weights",
    "with_own_levels",
]

_PARTS: Mapping[str, str] = {"transformer": "DiTTransformer2DModel", "unet": "UNet2DModel"}
"""The part of a pipeline that denoises, and its class."""

_AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny")


@final
class Pretrained(Backbone, frozen=True):
    """A network of diffusers' with weights that were trained elsewhere; they stay as they are.

    Attributes:
        network: its class.
        config: its options, as its config.json has them; those left out are the class's defaults.
        levels: the schedule that it was trained on.
        origin: where its weights are from, in words: a folder's name, or user/model@commit on the Hub.
        licence: of the weights, as their card names it.
    """

    kind: Literal["pretrained"] = "pretrained"
    network: Literal["DiTTransformer2DModel", "UNet2DModel"] = "DiTTransformer2DModel"
    config: folders.Config = Field(default={})
    levels: TrainedLevels = TrainedLevels()
    origin: folders.Words = ""
    licence: folders.Words = ""

    @model_validator(mode="after")
    def _supported(self) -> Pretrained:
        embedding = self.config.get("class_embed_type")
        if embedding is not None:
            raise ValueError(f"a network with class_embed_type {embedding!r} has no classes to choose from")
        time = self.config.get("time_embedding_type", "positional")
        if time != "positional":
            raise ValueError(f"a network with time_embedding_type {time!r} is told no number of a schedule")
        return self

    @property
    def classes(self) -> int:
        """How many classes it was trained on, without the null class; 0 for none."""
        if self.network == "DiTTransformer2DModel":
            return int(self._number("num_embeds_ada_norm", 1000))
        return int(self._number("num_class_embeds", 0))

    def check_size(self, height: int, width: int) -> None:
        """Refuse images, or latents, of another size than it was trained on, by a MechanismError."""
        side = self.config.get("sample_size", 32 if self.network == "DiTTransformer2DModel" else None)
        expected = tuple(side) if isinstance(side, list) else (side, side)
        if self.network == "UNet2DModel":
            halved = 2 ** (len(folders.full_config(self.network, self.config)["block_out_channels"]) - 1)
            if height % halved or width % halved:
                raise MechanismError(
                    f"The pretrained network takes sides that are multiples of {halved}, got "
                    f"{height}x{width}. Resize the images in the data."
                )
        if side is not None and expected != (height, width):
            raise MechanismError(
                f"The pretrained network takes {expected[0]}x{expected[1]}, got {height}x{width}: declare "
                "images of the size that it was trained on (its autoencoder's latents, where it has one) and "
                "resize those in the data."
            )

    def check_parents(self, parents: Mapping[str, Variable], conditional: bool) -> None:
        """Refuse parents that the network cannot be told of, by a MechanismError."""
        count, (first, *others) = self.classes, [*parents.values(), None]
        told = ", ".join(f"{name} ({each.describe()})" for name, each in parents.items()) or "no parents"
        if not count and parents and conditional:
            raise MechanismError(
                "The pretrained network knows no classes, so guidance by it alone moves nothing, but there "
                f"are parents: {told}. Use guidance {{kind: anticausal, denoiser: unconditional}}, and a "
                "predictor."
            )
        sizes = (count, count - 1) if self.network == "UNet2DModel" else (count,)
        fits = isinstance(first, Categorical) and first.size in sizes and others == [None]
        if count and not fits:
            raise MechanismError(
                f"The pretrained network has {count:,} classes: it takes one categorical parent of as many "
                f"categories, in its order; got {told}."
            )

    def check_options(
        self, prediction: str, coded: bool, trained: bool, predictor: object, solver: Solver
    ) -> None:
        """Refuse options of the mechanism that a pretrained network cannot have, by a ValueError."""
        flow = self.levels.betas == "flow"
        if flow != (prediction == "velocity") or prediction == "edm":
            fits = "velocity" if flow else "eps, x0 or v"
            raise ValueError(f"a network pretrained on these levels predicts {fits}, not {prediction!r}")
        if coded:
            raise ValueError("a pretrained network takes no style code: leave `code` out")
        if trained and predictor is None:
            raise ValueError(
                "a pretrained network is not trained: give `training: null`, or a predictor to train"
            )
        if predictor is not None and not trained:
            raise ValueError("a predictor has to be trained: give `training`, or `predictor: null`")
        known, levels = self.levels.sigmas(), solver.levels()
        if isinstance(solver.grid, TrainedGrid) and solver.grid.trained != self.levels:
            raise ValueError(
                "the grid's `trained` levels are not those that the network was trained on: leave `trained` "
                "out of {kind: trained}, which then has the network's own"
            )
        if not (known[0] * (1 - 1e-6) <= levels[0] and levels[-1] <= known[-1] * (1 + 1e-6)):
            raise ValueError(
                f"the pretrained network knows levels sigma from {known[0]:.4g} to {known[-1]:.4g}, but the "
                f"solver walks from {levels[0]:.4g} to {levels[-1]:.4g}: take a grid within, as "
                "{kind: trained}"
            )

    def build(self, image_channels: int, extra_channels: int, context: int) -> PretrainedNetwork:
        """The network, without weights yet."""
        if extra_channels:
            raise MechanismError("A pretrained network takes no image parents beside its own channels.")
        return PretrainedNetwork(self, image_channels, context)

    def remedy(self, folder: object = None) -> str:
        """How to get the weights, in sentences."""
        told = f" of {self.origin}" if self.origin else ""
        sought = f"; there is no folder {str(folder)!r} here" if folder else ""
        licence = f", under {self.licence}" if self.licence else ""
        repository, _, commit = self.origin.partition("@")
        way = "Give the folder that diffusers saved: scm.with_options(node, pipeline=pathlib.Path(folder))."
        if commit and folder:
            way = (
                f'Download them once{licence}: python -c "from diffusers import DiffusionPipeline as P; '
                f"P.from_pretrained('{repository}', revision='{commit}').save_pretrained('{folder}')\""
            )
        return f"The weights of its {self.network}{told} do not come with the model{sought}. {way}"

    def _number(self, option: str, default: int) -> float:
        found = self.config.get(option, default)
        return found if isinstance(found, int | float) else 0


class PretrainedNetwork(folders.FrozenNetwork):
    """F(x, sigma, context) of a pretrained network: told its own number of a level, and its own class."""

    def __init__(self, spec: Pretrained, image_channels: int, context: int) -> None:
        super().__init__(folders.laid_out(spec.network, spec.config), spec.remedy())
        self.levels, self.channels = spec.levels, image_channels
        config: Any = getattr(self.model, "config")  # noqa: B009
        takes, gives = config.in_channels, config.out_channels or config.in_channels
        if takes != image_channels or gives not in (takes, 2 * takes):
            raise MechanismError(
                f"The pretrained {spec.network} takes {takes} channels and gives {gives}, but the image, or "
                f"its latents, have {image_channels}: expected as many, and out {image_channels} or "
                f"{2 * image_channels} (with variances)."
            )
        # The context has a column for each category and a flag: see ``Denoiser``.
        self.categories = context - 1 if spec.classes else 0
        # A U-Net may have no embedding to spare; DiT's null class comes after the others.
        self.null = spec.classes if spec.network == "DiTTransformer2DModel" else self.categories
        self.has_null = spec.network == "DiTTransformer2DModel" or spec.classes > self.categories

    def forward(self, x: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        """F(x, sigma, context), (N, C, H, W), of x in the scale of what it predicts, and levels (N,).

        The context is (N, categories + 1); the last column is 0 where the class is hidden.
        """
        self.check_weights()
        told: dict[str, Tensor] = {}
        if self.categories:
            hidden = context[:, -1] == 0
            if not self.has_null and bool(hidden.any()):
                raise MechanismError(
                    "The pretrained network has no null class, so it cannot hide its class: use guidance "
                    "{kind: classifier_free, against: factual}, or a network trained with one."
                )
            told["class_labels"] = context[:, :-1].argmax(1).masked_fill(hidden, self.null)
        out = self.model(x, self.levels.times(sigma), return_dict=False, **told)[0]
        return out[:, : self.channels]


def pipeline_options(folder: Path | str) -> dict[str, Any]:
    """The options of ``diffusion`` that a pipeline's folder says: backbone, prediction, grid, autoencoder."""
    home = folders.local_folder(folder, "pipeline")
    index = folders.read_json(home / "model_index.json")
    part = next((part for part in _PARTS if part in index), None)
    if part is None:
        raise CheckpointError(
            f"The pipeline in {home} ({index.get('_class_name')}) has no {' and no '.join(_PARTS)}. "
            "A DiTPipeline and a DDPMPipeline can be mechanisms."
        )
    others = sorted(
        name
        for name, named in index.items()
        if name not in (part, "vae", "scheduler") and isinstance(named, list) and any(named)
    )
    if others:
        raise CheckpointError(
            f"The pipeline in {home} ({index.get('_class_name')}) has a part {others[0]!r}, which would be "
            "left out. A DiTPipeline and a DDPMPipeline can be mechanisms."
        )
    where = home / "scheduler" / "scheduler_config.json"
    levels, prediction = scheduler_options(folders.read_json(where), where)
    network, config = folders.read_network(folders.network_folder(home, part), (_PARTS[part],))
    backbone = {
        "kind": "pretrained", "network": network, "config": config, "levels": levels.model_dump(),
        "origin": _origin(home), "licence": folders.licence_of(home),
    }  # fmt: skip
    grid = {"kind": "trained", "trained": levels.model_dump()}
    options: dict[str, Any] = {
        "backbone": backbone,
        "prediction": prediction,
        "solver": {"kind": "anchored", "grid": grid},
        "predictor": None,
        "training": None,
    }
    if "vae" in index:
        name, config = folders.read_network(folders.network_folder(home, "vae"), _AUTOENCODERS)
        options["autoencoder"] = {"network": name, "config": config}
    elif part == "transformer" and index.get("_class_name") == "DiTPipeline":
        raise CheckpointError(f"The pipeline in {home} is incomplete: model_index.json lists no vae.")
    return options


def _origin(home: Path) -> str:
    """Where a folder's weights are from: of the Hub's cache, repository and commit."""
    if home.parent.name == "snapshots" and is_commit(home.name):
        return f"{home.parents[1].name.removeprefix('models--').replace('--', '/')}@{home.name}"
    return home.resolve().name


def said_by_pipeline(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of ``diffusion`` that name a pipeline's folder, with what the folder says.

    Where a backbone is among them they say it all, and the weights may come later. Options given come before
    what the folder says; a solver of another kind keeps its grid, and a predictor that is no classifier is
    trained.
    """
    given = dict(options)
    named = given["pipeline"]
    home = given["pipeline"] = folders.inside(named)
    if "backbone" in given:
        return given
    try:
        said = pipeline_options(home)
    except CheckpointError as error:
        if isinstance(named, Path):
            raise
        raise ValueError(str(error).removesuffix(".")) from error
    if isinstance(solver := given.get("solver"), Mapping):
        given["solver"] = {"grid": said["solver"]["grid"], **solver}
    merged = merge_options(said, given)
    if merged["predictor"] is not None and not is_classifier(merged["predictor"]) and "training" not in given:
        del merged["training"]
    return merged


def with_own_levels(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Options of ``diffusion`` whose grid ``trained``, if it names no levels, has those of the network."""
    backbone, solver = options.get("backbone"), options.get("solver")
    levels = backbone.get("levels") if isinstance(backbone, Mapping) else getattr(backbone, "levels", None)
    if levels is None or not isinstance(solver, Mapping):
        return options
    grid = solver.get("grid")
    if not isinstance(grid, Mapping) or grid.get("kind") != "trained":
        return options
    return {**options, "solver": {**solver, "grid": {"trained": levels, **grid}}}


def take_weights(made: Mechanism, spec: Any, network: nn.Module, predictor: nn.Module | None) -> None:
    """Give a mechanism that was just made of a spec the weights of the folders that it names.

    The mechanism's own spec then has no folders, and no weights of a classifier. Where a file says the whole
    architecture and the pipeline's folder is not there, the mechanism waits for its weights: it can be shown,
    and refuses to be asked.
    """
    own = dict[str, folders.FrozenNetwork]()
    if isinstance(network, folders.FrozenNetwork):
        own["network"] = network
    if isinstance(autoencoder := getattr(made, "autoencoder", None), AutoencoderNetwork):
        own["autoencoder"] = autoencoder
    classifier = predictor.encoder if isinstance(predictor, OwnPredictor) else None
    if not own and classifier is None:
        return
    said, home = spec.autoencoder, spec.pipeline
    inner = "inner." if "autoencoder" in own else ""
    places = {"network": f"{inner}denoiser.network.", "autoencoder": "autoencoder."}
    if said is not None and said.folder is not None:
        own["autoencoder"].take(folders.read_weights(said.folder), said.folder)
        made.brought += ("autoencoder.",)
        said = said.model_copy(update={"folder": None})
    made.awaits_weights = home is not None
    if home is not None and home.is_dir():
        _check_same(home, spec.backbone)
        _check_order(home, made.parents)
        part = next(part for part, name in _PARTS.items() if name == spec.backbone.network)
        for key, folder in (("network", home / part), ("autoencoder", home / "vae")):
            if key in own and own[key].waits:
                own[key].take(folders.read_weights(folder), folder)
                made.brought += (places[key],)
        home = None
    elif home is not None:
        for each in own.values():
            each.remedy = spec.backbone.remedy(home)
    given = {} if classifier is None else {"predictor": spec.predictor.without_weights()}
    made.spec = spec.model_copy(update={"autoencoder": said, "pipeline": home, **given})
    told: list[str] = []
    for each in (spec.backbone if "network" in own else None, said):
        if each is not None and getattr(each, "training", None) is None:  # else it is trained with the node
            parts = (each.network, each.origin and f"of {each.origin}", each.licence and f"({each.licence})")
            told.append(" ".join(filter(None, parts)))
    if classifier is not None:
        told.append(spec.predictor.describe())
        own["classifier"] = classifier
    made.note = "pretrained: " + ", ".join(told) if told else ""
    waiting = next((each for each in own.values() if each.waits), None)
    if waiting is not None:
        made.remedy = waiting.remedy
        made.fitted_flag.fill_(False)
    elif spec.training is None and "network" in own:
        made.mark_fitted()
        made.brought += ("fitted_flag",) if made.brought else ()


def _check_order(home: Path, parents: Mapping[str, Variable]) -> None:
    """Refuse labels in another order than the network's classes, where the pipeline names these."""
    named = folders.read_json(home / "model_index.json").get("id2label")
    (name, variable), *_ = [*parents.items(), ("", None)]
    if not isinstance(named, dict) or not isinstance(variable, Categorical) or variable.labels is None:
        return
    classes = {
        word.strip(): int(code)
        for code, words in named.items()
        for word in (*str(words).split(","), str(words))
    }
    for code, label in enumerate(variable.labels):
        own = str(named.get(str(code), ""))
        if str(label) in (own, *(word.strip() for word in own.split(","))):
            continue
        if (other := classes.get(str(label))) is not None:
            raise MechanismError(
                f"Parent {name!r}: its label {label!r} is number {code}, but the pipeline's class of that "
                f"name is number {other}; {code} is {own!r} there. Give the labels in the network's order."
            )


def _check_same(home: Path, spec: Pretrained) -> None:
    """Refuse a pipeline that is not the one declared."""
    found = Pretrained.model_validate(pipeline_options(home)["backbone"])
    whole = [folders.full_config(each.network, each.config) for each in (found, spec)]
    if found.network != spec.network or whole[0] != whole[1] or found.levels != spec.levels:
        raise CheckpointError(
            f"The pipeline in {home} is another one than is declared: its {spec.network} or its schedule "
            "differs. Leave `backbone` out to take what is in the folder."
        )


def hub_pipeline(name: str, revision: object) -> Path:
    """The folder of a pipeline on the Hub at a commit: its configs, cards and safetensors, downloaded."""
    commit = check_commit(revision, "from_pipeline")
    wanted = ["model_index.json", "README.md", "*/*.json", "*/*.safetensors"]
    with hub_errors(f"Cannot get the pipeline {name} at {commit[:8]} from the Hub", "a folder") as hub:
        return Path(hub.snapshot_download(name, revision=commit, allow_patterns=wanted))
