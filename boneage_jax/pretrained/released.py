"""Initialises from weights of this package (`boneage export-weights`): the trunk, and the head if it is the same."""

import dataclasses
from pathlib import Path
from typing import Any

import flax.linen as nn
from absl import logging
from flax import traverse_util

from boneage_jax.errors import BoneAgeError
from boneage_jax.models import Description, Network
from boneage_jax.pretrained.assign import assign
from boneage_jax.released import weights

# Fields that do not change the function that a trunk computes outside training.
_HOW = ("axis_name", "remat", "dtype", "drop_path", "frozen_statistics", "parent", "name")


def start_from(path: Path | str, name: str, network: Network, variables: dict[str, Any]) -> dict[str, Any]:
    """As `load.start_from`, for a file of released weights.

    The loaded head gives the months that the file gives, except that further inputs which are numbers are standardised
    with the new training split's statistics.

    Raises:
        BoneAgeError: the file is damaged, holds several networks or none for bone age, or its trunk differs.
    """
    stored = weights.read(path)
    try:
        if stored.members:
            names = ", ".join(one.header.name for one in stored.members)
            raise BoneAgeError(f"it contains {len(stored.members)} networks ({names}); name a file with one network")
        theirs = _description(stored.header)
        _check_same(stored.header.model["name"], name, theirs.network().trunk, network.trunk)
        loaded = {"trunk": _part(stored.variables, variables, "trunk")}
    except BoneAgeError as error:
        raise BoneAgeError(f"{name} cannot start from {path}: {error}") from error
    try:
        loaded["head"] = _in_our_units(_part(stored.variables, variables, "head"), network.head, theirs)
        logging.info("%s starts from %s: trunk and head.", name, path)
    except BoneAgeError as error:
        logging.info("%s starts from %s: trunk only; for the head, %s.", name, path, error)
    return {
        kind: tree | {part: found[kind] for part, found in loaded.items() if kind in found}
        for kind, tree in variables.items()
    }


def _description(header: weights.Header) -> Description:
    try:
        return Description.from_dict(header.model)
    except (KeyError, TypeError, ValueError) as error:
        raise BoneAgeError(
            f"it contains a {header.model.get('name')}, which is no bone-age network of this version; use another file"
        ) from error


def _in_our_units(variables: dict[str, Any], head: nn.Module, theirs: Description) -> dict[str, Any]:
    """The variables of their head for a head whose outputs are standardised with other label statistics."""
    same = (theirs.label_mean, theirs.label_std) == (head.label_mean, head.label_std)
    if same or not hasattr(head, "rescaled"):  # a head without this method gives months
        return variables
    return {**variables, "params": head.rescaled(variables["params"], theirs.label_mean, theirs.label_std)}


def _check_same(their_name: str, our_name: str, theirs: nn.Module, ours: nn.Module) -> None:
    """Raises BoneAgeError, naming the differences, unless both trunks compute the same function."""
    if not isinstance(ours, type(theirs)):  # a trunk that extends theirs has its layers
        raise BoneAgeError(f"it contains a {their_name}; set model.name to that, or use another file")
    fields = {field.name: field.default for field in dataclasses.fields(ours) if field.name not in _HOW}
    options = {name: (getattr(theirs, name, default), getattr(ours, name)) for name, default in fields.items()}
    different = [
        f"{name} is {their!r} there, but {our!r} here" for name, (their, our) in options.items() if their != our
    ]
    if different:
        raise BoneAgeError(
            f"it contains a {their_name} with different options from the configured {our_name}: {'; '.join(different)}"
        )


def _part(stored: dict[str, Any], variables: dict[str, Any], part: str) -> dict[str, Any]:
    """The stored variables of the trunk or the head; raises BoneAgeError unless they are exactly the expected ones."""
    theirs = {kind: tree[part] for kind, tree in stored.items() if part in tree}
    like = {kind: tree[part] for kind, tree in variables.items() if part in tree}
    leaves = {"/".join(path[1:]): "/".join(path[1:]) for path in traverse_util.flatten_dict(like)}
    arrays = {"/".join(path[1:]): value for path, value in traverse_util.flatten_dict(theirs).items()}
    return assign(arrays, leaves, like, "ours")
