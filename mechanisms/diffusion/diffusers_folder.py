"""Folders that diffusers saved: a network's class by name, its config and its safetensors, and no pickle.

    pipeline/model_index.json                   the pipeline's class, and each part's class
    pipeline/README.md                          the card, whose front matter names the licence
    pipeline/<part>/config.json                 of a network: its class and options
    pipeline/<part>/*.safetensors               its weights, in one file or in shards with an index

A class is one of a short list; a config holds plain values for its constructor. So a file says which network
a model has without any import path. A network is laid out without memory (torch's "meta" device) and gets its
weights afterwards: from a folder, or from a saved model's state.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import torch
from diffusers.models.embeddings import PatchEmbed
from pydantic import AfterValidator, BeforeValidator, StrictBool, StrictFloat, StrictInt, StrictStr
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from graphs.errors import CheckpointError, MechanismError, NotFittedError, UnknownNameError
from graphs.text import check_text
from mechanisms.networks import first_non_finite

__all__ = [
    "Config",
    "FrozenNetwork",
    "NETWORKS",
    "Words",
    "full_config",
    "inside",
    "laid_out",
    "licence_of",
    "local_folder",
    "network_folder",
    "read_json",
    "read_network",
    "read_safetensors",
    "read_weights",
]

NETWORKS: Mapping[str, str] = {
    "AutoencoderKL": "diffusers.models.autoencoders.autoencoder_kl",
    "AutoencoderTiny": "diffusers.models.autoencoders.autoencoder_tiny",
    "DiTTransformer2DModel": "diffusers.models.transformers.dit_transformer_2d",
    "UNet2DModel": "diffusers.models.unets.unet_2d",
}
"""The classes that a folder or a file may name, with diffusers' modules of them."""

_DERIVED = ("AutoencoderTiny", "block_out_channels")
"""Of a class, what it writes into its config and does not take."""

_WEIGHTS = "diffusion_pytorch_model.safetensors"
_JSON_BYTES = 2**22
_LARGEST, _DEEPEST, _LONGEST = 2**20, 1_000, 64
"""Of a config: a number, how many layers, and how long a list."""


def _bounded(value: object) -> object:
    """A config that can be laid out in a moment, whatever it says."""
    for name, each in value.items() if isinstance(value, Mapping) else ():
        items = each if isinstance(each, Sequence) and not isinstance(each, str) else [each]
        most = _DEEPEST if "layer" in str(name) or "blocks" in str(name) else _LARGEST
        numbers = [item for item in items if isinstance(item, int | float)]
        if len(items) > _LONGEST or any(not abs(number) <= most for number in numbers):
            raise ValueError(
                f"config {name!r} is larger than any network's: at most {_LONGEST} items of {most:,}"
            )
    return value


_Plain: TypeAlias = StrictBool | StrictInt | StrictFloat | StrictStr | None
Config = Annotated[
    dict[str, _Plain | list[StrictBool | StrictInt | StrictFloat | StrictStr]], BeforeValidator(_bounded)
]
"""The options of a network of diffusers', as its config.json has them."""

Words = Annotated[str, AfterValidator(lambda text: check_text(text, "origin or licence"))]
"""What is shown of where weights are from."""


def inside(path: Path | str, what: str = "a folder") -> Path:
    """A path; one that is text, as in a file, stays below the working directory."""
    found = Path(path)
    if isinstance(path, str) and (found.is_absolute() or ".." in found.parts or "\\" in path or ":" in path):
        raise ValueError(
            f"{what} in a file lies below the working directory, got {path!r}: in Python a pathlib.Path "
            "may lie anywhere, as in cg.mechanisms.Diffusion.from_pipeline(path)"
        )
    return found


def local_folder(path: Path | str, what: str) -> Path:
    """The folder, which is there."""
    folder = Path(path)
    if not folder.is_dir():
        raise CheckpointError(
            f"No folder {str(path)!r} for the {what}. Give the folder that diffusers' save_pretrained wrote; "
            "nothing is downloaded unless a revision is given."
        )
    return folder


def network_folder(folder: Path, part: str) -> Path:
    """The folder of a pipeline's network."""
    found = folder / part
    if not (found / "config.json").is_file():
        raise CheckpointError(
            f"The pipeline in {folder} is incomplete: {part}/config.json is missing. Save it again."
        )
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a few kilobytes."""
    try:
        if path.stat().st_size > _JSON_BYTES:
            raise CheckpointError(f"{path} is no config: it is larger than {_JSON_BYTES:,} bytes.")
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is damaged: expected a JSON object, got a {type(found).__name__}.")
    return found


def read_network(folder: Path, allowed: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The class and the config of the network in a folder."""
    config = read_json(folder / "config.json")
    name = str(config.get("_class_name"))
    if name == "Transformer2DModel" and config.get("norm_type") == "ada_norm_zero":
        name = "DiTTransformer2DModel"  # what DiT was called when its weights were published
    if name not in allowed:
        raise CheckpointError(
            f"{folder / 'config.json'} is of the class {name!r}; expected {' or '.join(map(repr, allowed))}."
        )
    known = inspect.signature(_class_of(name).__init__).parameters
    options = {key: value for key, value in config.items() if not key.startswith("_")}
    # An option of another version that is off changes nothing.
    unknown = [
        key
        for key, value in options.items()
        if key not in known and value not in (None, False) and (name, key) != _DERIVED
    ]
    if unknown:
        raise CheckpointError(
            f"{folder / 'config.json'}: {name} of this diffusers has no option {unknown[0]!r}, which is "
            f"{options[unknown[0]]!r} there. Install the version of diffusers that saved it."
        )
    return name, {key: value for key, value in options.items() if key in known}


def full_config(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with its class's defaults, to be compared."""
    known = inspect.signature(_class_of(name).__init__).parameters
    defaults = {key: each.default for key, each in known.items() if each.default is not each.empty}
    whole = {**defaults, **config}
    return {key: list(each) if isinstance(each, tuple) else each for key, each in whole.items()}


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of the network in a folder, in float32."""
    index = folder / f"{_WEIGHTS}.index.json"
    if index.is_file():
        names = sorted({str(name) for name in dict(read_json(index).get("weight_map", {})).values()})
    else:
        names = [_WEIGHTS]
    found: dict[str, Tensor] = {}
    for name in names:
        path = folder / name
        if re.search(r"[/\\]", name) or not path.is_file():
            raise CheckpointError(f"No weights in {folder}: {name} is missing.{_instead(folder)}")
        found |= read_safetensors(path)
    return found


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, in float32."""
    try:
        with safe_open(path, framework="pt") as file:
            found = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"Cannot read {path}: {error}.") from error
    return {name: each.float() if each.is_floating_point() else each for name, each in found.items()}


def _instead(folder: Path) -> str:
    """What weights there are that are not read, and what to do about it."""
    others = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".ckpt", ".pth"))
    if others:
        return (
            f" There is {others[0]}, a pickle, which may run any code when it is read, and is not read. If "
            "you trust it, have diffusers convert it: Pipeline.from_pretrained(old).save_pretrained(new)."
        )
    variants = sorted(path.name for path in folder.glob("*.safetensors"))
    return f" There is {variants[0]}: rename it to use it." if variants else ""


def licence_of(folder: Path) -> str:
    """The licence that the front matter of a folder's README names, or ''."""
    card = folder / "README.md"
    if not card.is_file() or card.stat().st_size > _JSON_BYTES:
        return ""
    matter = re.match(r"---\s*\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    named = re.search(r"^license:\s*[\"']?([\w.+-]{1,60})", matter[1], re.MULTILINE) if matter else None
    return named[1] if named else ""


def _class_of(name: str) -> type[nn.Module]:
    UnknownNameError.check("network of diffusers'", name, NETWORKS)
    return getattr(import_module(NETWORKS[name]), name)


def laid_out(name: str, config: Mapping[str, Any], device: str = "meta") -> nn.Module:
    """A network of diffusers', on "meta" without memory for its weights."""
    try:
        with torch.device(device):
            model = _class_of(name)(**config)
    except (TypeError, ValueError, RuntimeError, NotImplementedError, ZeroDivisionError, IndexError) as error:
        raise MechanismError(f"The config does not describe a {name}: {error}.") from error
    for module in model.modules():
        if isinstance(module, PatchEmbed) and module.pos_embed is not None:
            module.register_buffer("pos_embed", _positions(module), persistent=False)
    lacking = {*dict(model.named_buffers())} - {*model.state_dict()}
    if any(model.get_buffer(each).is_meta for each in lacking):
        raise MechanismError(f"This {name} has buffers that no file keeps: {sorted(lacking)}.")
    return model


class FrozenNetwork(nn.Module):
    """A network whose weights were trained elsewhere; it is never trained or in training mode."""

    def __init__(self, model: nn.Module, remedy: str, *, waits: bool = True) -> None:
        super().__init__()
        self.model, self.waits, self.remedy = model, waits, remedy
        self.requires_grad_(False).eval()

    def take(self, weights: Mapping[str, Tensor], where: object) -> None:
        """Have these weights, which are not copied."""
        expected = self.model.state_dict()
        wrong = sorted({*weights} ^ {*expected}) or sorted(
            name for name, own in expected.items() if own.shape != weights[name].shape
        )
        if wrong:
            got = f"of shape {tuple(weights[wrong[0]].shape)}" if wrong[0] in weights else "missing"
            meant = f"of shape {tuple(expected[wrong[0]].shape)}" if wrong[0] in expected else "absent"
            raise CheckpointError(
                f"The weights in {where} do not fit their config: {wrong[0]!r} is {got}, expected {meant}."
            )
        if bad := first_non_finite(weights):
            raise CheckpointError(f"The weights in {where} are no numbers: {bad}.")
        self.model.load_state_dict(dict(weights), assign=True)
        self.requires_grad_(False)
        self.waits = False

    def check_weights(self) -> None:
        """Refuse to go on without weights."""
        if self.waits:
            raise NotFittedError(self.remedy)

    def train(self, mode: bool = True) -> FrozenNetwork:
        """Stay as it is: dropout of labels, among others, is for training."""
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenNetwork:
        return self if self.waits else super()._apply(fn, recurse)  # there is nothing to move

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        given = [each for name, each in state_dict.items() if name.startswith(f"{prefix}model.")]
        if self.waits and given and not any(each.is_meta for each in given):  # of one that waits, too
            for module in self.model.modules():
                for name, own in module._parameters.items():
                    if own is not None and own.is_meta:
                        module._parameters[name] = nn.Parameter(torch.empty_like(own, device="cpu"), False)
                for name, own in module._buffers.items():
                    if own is not None and own.is_meta:
                        module._buffers[name] = torch.empty_like(own, device="cpu")
            self.waits = False
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _positions(module: PatchEmbed) -> Tensor:
    """The fixed positions of a transformer's patches, which no file keeps."""
    convolution = module.proj
    assert isinstance(convolution, nn.Conv2d)
    # One channel: the positions do not depend on what the patches hold.
    size = module.patch_size
    fresh = PatchEmbed(module.height * size, module.width * size, size, 1, convolution.out_channels)
    assert isinstance(fresh.pos_embed, Tensor)
    return fresh.pos_embed
