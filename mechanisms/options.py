"""Mechanisms from others: the same weights under other options, a copy to fit anew, or to go on training."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Mapping
from copy import deepcopy
from operator import attrgetter
from typing import Annotated, Any

import torch
from pydantic import Field, ValidationError, field_validator
from torch import Tensor, nn

from graphs.declared import declaration_error
from graphs.errors import MechanismError, UnknownNameError
from mechanisms.base import Mechanism, MechanismSpec
from mechanisms.training import Stage, filled

__all__ = [
    "Hidden",
    "TrainedSpec",
    "changed_spec",
    "fit_afresh",
    "merge_options",
    "start_from",
    "take_weights",
    "with_options",
]

Hidden = Annotated[tuple[Annotated[int, Field(ge=1, le=16384)], ...], Field(min_length=1, max_length=16)]
"""Widths of the hidden layers of a network; at least one."""


class TrainedSpec(MechanismSpec, frozen=True):
    """A spec whose ``training`` has a default; ``training: {epochs: 5}`` changes the epochs alone."""

    @field_validator("training", mode="before")
    @classmethod
    def _fill_training(cls, value: object) -> object:
        return filled(value, cls.model_fields["training"].default)


def with_options(node: str, mechanism: Mechanism, options: Mapping[str, Any]) -> Mechanism:
    """A node's mechanism with some options changed; the same weights but those that come with an option."""
    spec = changed_spec(node, mechanism.spec, options)
    for name in spec.learned if mechanism.fitted else ():
        try:
            before, after = map(attrgetter(name), (mechanism.spec, spec))
        except AttributeError:  # of a part that is not there
            continue
        if before != after:
            raise MechanismError(
                f"Node {node!r}: its weights were fitted with {name} {before!r}, and mean nothing with "
                f"{after!r}. Fit a new model instead."
            )
    new = spec.bind(mechanism.variable, mechanism.parents)
    state = {name: each for name, each in mechanism.state_dict().items() if not name.startswith(new.brought)}
    state |= {name: each for name, each in new.state_dict().items() if name.startswith(new.brought)}
    try:
        new.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise MechanismError(
            f"Node {node!r}: options {sorted(options)} need other weights than these. "
            "Fit a new model instead."
        ) from error
    return new.eval()


@torch.no_grad()
def fit_afresh(mechanism: Mechanism, *, choose: bool = True) -> Mechanism:
    """What a fit may change: a copy of a mechanism, with the weights that it had before any fit.

    Whoever has this one, under other options or an intervention, keeps it as it is; and an earlier fit, also
    one that was interrupted or failed, decides nothing of a later one. What ``auto`` chose is chosen again,
    unless ``choose`` is False. Weights that no fit changes share their memory.
    """
    if choose and mechanism.chosen_from is not None:
        return mechanism.chosen_from.bind(mechanism.variable, mechanism.parents).to(mechanism.device)
    frozen = {id(weight): weight for weight in mechanism.parameters() if not weight.requires_grad}
    if frozen and (stage := mechanism.first_stage()) is not None:  # which trains such weights
        for weight in stage.part.parameters():
            frozen.pop(id(weight), None)
    new = deepcopy(mechanism, {key: nn.Parameter(weight.detach(), False) for key, weight in frozen.items()})
    for network in new.large_networks:
        network.to(torch.float32)  # steps are too small for weights of 16 bits
    if new.fitted and new.spec.training is not None:  # else no fit has touched them: each has its own copy
        bound = new.spec.bind(new.variable, new.parents).to(new.device)
        _match_layers(new, bound)
        kept = {"fitted_flag", "seen_range", *_state_of(mechanism, frozen)}
        first = {**dict(bound.named_parameters()), **dict(bound.named_buffers())}
        for name, tensor in (*new.named_parameters(), *new.named_buffers()):
            # Others are made in ``prepare``, or sized there.
            if name not in kept and name in first and first[name].shape == tensor.shape:
                tensor.copy_(first[name])
    return new


def _state_of(module: nn.Module, weights: Container[int]) -> Iterator[str]:
    """Names of the weights with these ids, and of the buffers of parts that have no others."""
    yield from (name for name, weight in module.named_parameters() if id(weight) in weights)
    for place, part in module.named_modules(remove_duplicate=False):
        own = [id(weight) in weights for weight in part.parameters()]
        if place and own and all(own):
            yield from (f"{place}.{name}" for name, _ in part.named_buffers())


@torch.no_grad()
def start_from(node: str, mechanism: Mechanism, earlier: Mechanism) -> None:
    """Give a mechanism, in place, the weights of an earlier one of the same node.

    A linear layer with further inputs after those it had keeps what it knew: their weights are 0, so that a
    wider context changes nothing yet. Layers that the earlier one lacks stay as they are, unless its weights
    were trained without a layer that they may be without (``_match_layers``). A part that is trained first,
    as a style code is, begins anew where its networks are others.
    """
    pairs = (
        ("mechanism", mechanism.spec.kind, earlier.spec.kind),
        ("variable", mechanism.variable, earlier.variable),
        ("parents", mechanism.parents, earlier.parents),
    )
    for what, own, other in pairs:
        if own != other:
            raise MechanismError(
                f"Node {node!r} cannot start from the weights of the other model: its {what} differs there, "
                f"{other!r} instead of {own!r}. Fit it without, or give a model of the same node."
            )
    stage = mechanism.first_stage()
    anew = () if stage is None or stage.settings is None else tuple(stage.part.parameters())
    take_weights(f"Node {node!r} cannot start from the weights of the other model", mechanism, earlier, anew)
    if stage is not None and stage.settings is None:
        _keep_part(node, mechanism, earlier, stage)


def _match_layers(module: nn.Module, other: nn.Module) -> None:
    """Give a module the optional layers of another one, None where it has none, as ``UNetNetwork`` may."""
    own = dict(module.named_modules())
    for place, part in other.named_modules():
        for name, layer in vars(part)["_modules"].items() if place in own else ():
            mine = vars(own[place])["_modules"].get(name, layer)
            if (layer is None) != (mine is None):
                setattr(own[place], name, deepcopy(layer))


@torch.no_grad()
def take_weights(failure: str, module: nn.Module, earlier: nn.Module, anew: Collection[Tensor] = ()) -> None:
    """Give a module the weights of an earlier one, as ``start_from`` does; ``failure`` begins the error.

    Those in ``anew`` stay as they are if any has another shape there.
    """
    _match_layers(module, earlier)
    known = dict(earlier.named_parameters())
    own = {name: weight for name, weight in module.named_parameters() if name in known}
    part = {name for name, weight in own.items() if any(weight is each for each in anew)}
    if any(own[name].shape != known[name].shape for name in part):
        own = {name: weight for name, weight in own.items() if name not in part}
    for name, weight in own.items():
        before = known[name]
        wider = weight.ndim == 2 and len(weight) == len(before) and weight.shape[1] > before.shape[1]
        if not wider and weight.shape != before.shape:
            raise MechanismError(
                f"{failure}: {name} is {tuple(weight.shape)}, there {tuple(before.shape)}. "
                "Give both the same networks."
            )
        if not (wider or weight.requires_grad):  # other models may have it in the same memory
            if not (weight.is_meta or torch.equal(weight, before.to(weight))):
                weight.data = before.detach().to(weight, copy=True)
            continue
        weight.zero_()
        weight[:, : before.shape[1]].copy_(before) if wider else weight.copy_(before)


def _keep_part(node: str, mechanism: Mechanism, earlier: Mechanism, stage: Stage) -> None:
    """Take a part as it is in the earlier mechanism, with what training found beside its weights."""
    place = next(name for name, module in mechanism.named_modules() if module is stage.part)
    there = dict(earlier.named_modules()).get(place)
    try:
        stage.part.load_state_dict({} if there is None else there.state_dict())
    except RuntimeError as error:
        found = "none" if there is None else "another one"
        raise MechanismError(
            f"Node {node!r}: {stage.name}.training is null, which keeps the {stage.name} of the model that "
            f"the fit starts from, but that has {found}. Leave the option out."
        ) from error


def changed_spec(node: str, spec: MechanismSpec, options: Mapping[str, Any]) -> MechanismSpec:
    """A node's spec with some options changed."""
    fields = type(spec).model_fields.keys() - {"kind"}
    for name in options:
        UnknownNameError.check("option", name, fields, where=f"node {node!r} ({spec.kind})")
    dumped = spec.model_dump(include=options.keys() - set(spec.whole))
    # Others stay as they are: a part from Python may have a kind that no registry knows.
    kept = {name: getattr(spec, name) for name in fields if name not in options}
    try:
        return type(spec).model_validate(kept | merge_options(dumped, options))
    except ValidationError as error:
        raise declaration_error(error, f"Node {node!r}", type(spec)) from error


def merge_options(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Options with some changed; a part with another ``kind`` starts from that kind's defaults."""
    merged = dict(old)
    for name, value in new.items():
        before = merged.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            kind = value.get("kind")  # a number where a parent that has a strength is called so
            same = not isinstance(kind, str) or kind == before.get("kind")
            merged[name] = merge_options(before, value) if same else dict(value)
        else:
            merged[name] = value
    return merged
