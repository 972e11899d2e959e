"""Saved evaluators: weights of each network as safetensors, a manifest that says how to build them, a card.

    classifier.safetensors ...   the weights of each network
    README.md                    the card, which may be edited
    manifest.json                format, version, variables, recipe, metadata (under ``told``), and size and
                                 sha256 of each file of weights; written last

The codec is that of ``causalgen.saving.manifest``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from causalgen.arguments import as_path
from causalgen.metrics.evaluators.evaluators import Evaluators, Recipe, Roles
from causalgen.saving.manifest import CODEC_KEYS, FolderFormat, load_weights, read_tensors, tensor_bytes
from graphs.errors import CausalgenError, CheckpointError, UnknownNameError
from graphs.limits import model_bytes
from graphs.text import check_text, markdown
from graphs.variables import Variable
from mechanisms.allowance import Allowance
from mechanisms.networks import first_non_finite

__all__ = ["EVALUATORS", "SHIPPED", "card_text", "evaluator_names", "load_evaluators", "save_evaluators"]

CARD = "README.md"

# Its name on the disk is the one that folders of format 1 have.
EVALUATORS = FolderFormat(
    "causalgen-judges",
    "set of evaluators",
    names=re.compile(r"[a-z]+\.safetensors|README\.md"),
    expected="<network>.safetensors",
    unlisted=frozenset([CARD]),
)

_TIMES = 4
"""What building evaluators may take, in times of their weights."""

SHIPPED = Path(__file__).parent / "weights"

_USES = {
    "classifier": "effectiveness; its features: FD",
    "autoencoders": "one for each class, and one for all: IM1, IM2",
    "variational": "CLD",
    "regressor": "effectiveness on numbers",
}


class _Described(BaseModel):
    """What a manifest says of evaluators, beside the codec's keys."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, AfterValidator(lambda name: check_text(name, "name"))]
    image: str
    label: str
    numbers: tuple[str, ...]
    pixels: Literal["[0, 1]"] = "[0, 1]"
    variables: dict[str, Variable]
    recipe: Recipe
    told: dict[str, Any]


def evaluator_names() -> tuple[str, ...]:
    """Data sets whose evaluators ship with the package, sorted."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob(f"*/{EVALUATORS.manifest}")))


def load_evaluators(name: Path | str) -> Evaluators:
    """Evaluators that ship with the package, by the name of their data set, or those in a folder.

    Args:
        name: such as "mnist", or a folder that ``save_evaluators`` wrote; a folder of that name comes first.

    Raises:
        UnknownNameError: neither a folder nor a data set whose evaluators ship.
        CheckpointError: the folder holds no evaluators, or is damaged.
        ChecksumError: a file is not the one that was saved.
        FormatVersionError: written by a newer version.
    """
    folder = as_path(name, "load_evaluators: name")
    if not EVALUATORS.found(folder):
        UnknownNameError.check("evaluators", str(name), evaluator_names())
        folder = SHIPPED / str(name)
    manifest, contents = EVALUATORS.load(folder)
    weights = sum(len(data) for data in contents.values())
    evaluators = _described(manifest, folder / EVALUATORS.manifest, weights)
    for key, network in evaluators.networks.items():
        path = folder / f"{key}.safetensors"
        state = read_tensors(contents[path.name], path)
        load_weights(network, state, f"The weights in {path}")
        if bad := first_non_finite(state):
            raise CheckpointError(f"{path} holds no numbers: {bad}. Train the evaluators again.")
    evaluators.sha256 = _checksums(manifest["files"])
    return evaluators


def save_evaluators(evaluators: Evaluators, folder: Path | str, card: str | None = None) -> None:
    """Save evaluators to a folder, atomically: weights, ``manifest.json`` and ``README.md``.

    From then on ``evaluators.sha256`` has the checksums.

    Args:
        evaluators: trained.
        folder: where to; earlier evaluators in it are replaced.
        card: the README; by default it is written from what is known.

    Raises:
        CheckpointError: the folder holds something else, or cannot be written; it is unchanged then.
    """
    as_path(folder, "save_evaluators: folder")
    for key, network in evaluators.networks.items():
        if bad := first_non_finite(network.state_dict()):
            raise CheckpointError(
                f"Evaluators are not saved: of the network {key!r}, {bad}. Train them again."
            )
    told = {"name": evaluators.name, "recipe": evaluators.recipe, "told": evaluators.metadata}
    described = _Described(**told, **vars(evaluators.roles))
    files = {f"{key}.safetensors": tensor_bytes(net.state_dict()) for key, net in evaluators.networks.items()}
    files[CARD] = (card if card is not None else card_text(evaluators)).encode()
    evaluators.sha256 = _checksums(EVALUATORS.save(folder, files.items(), described.model_dump(mode="json")))


def _described(manifest: Mapping[str, Any], path: Path, weights: int) -> Evaluators:
    """Evaluators as a manifest describes them, before their weights, of so many bytes, are loaded."""
    try:
        described = _Described.model_validate({key: manifest[key] for key in manifest.keys() - CODEC_KEYS})
    except ValidationError as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from error
    roles = Roles(described.image, described.label, described.numbers, described.variables)
    try:
        with Allowance(max(model_bytes(), _TIMES * weights)):
            evaluators = Evaluators(described.name, roles, described.recipe)
    except (CausalgenError, KeyError, AssertionError, RuntimeError) as error:
        raise CheckpointError(f"{path} describes no evaluators: {error}.") from error
    if set(manifest["files"]) != {f"{key}.safetensors" for key in evaluators.networks}:
        raise CheckpointError(
            f"{path} lists the files {sorted(manifest['files'])}, "
            f"expected a .safetensors for each of {sorted(evaluators.networks)}."
        )
    evaluators.metadata = described.told
    return evaluators


def _checksums(files: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {name.removesuffix(".safetensors"): entry["sha256"] for name, entry in files.items()}


def card_text(evaluators: Evaluators, data: str | None = None, command: str | None = None) -> str:
    """The README of saved evaluators, in Markdown: what they are, how they were trained and how good."""
    asked = "Say here what the data are, where they come from, and their licence."
    lines = [f"# Evaluators of {markdown(evaluators.name)}", ""]
    lines += [f"They read {markdown(evaluators.roles.describe())}, pixels in [0, 1]."]
    lines += ["They score counterfactual images, and never guide any.", "", "## Networks", ""]
    lines += [*_table(evaluators), "", "## Data", "", data if data is not None else asked, ""]
    lines += ["## Training", ""]
    if command is not None:
        lines += [f"    {command}", ""]
    metadata = evaluators.metadata.items()
    lines += [f"- {what.replace('_', ' ')}: {value}" for what, value in metadata if what != "figures"]
    figures = evaluators.metadata.get("figures")
    if isinstance(figures, Mapping):
        lines += ["", "## Figures", "", "On rows that none of them was trained on.", ""]
        lines += [f"- {what}: {value:.5g}" for what, value in cast(Mapping[str, float], figures).items()]
    return "\n".join([*lines, ""])


def _table(evaluators: Evaluators) -> Iterator[str]:
    yield "| Network | Parameters | For |"
    yield "|---|---|---|"
    for name, network in evaluators.networks.items():
        size = sum(each.numel() for each in network.parameters())
        yield f"| {name} | {size:,} | {_USES[name]} |"
