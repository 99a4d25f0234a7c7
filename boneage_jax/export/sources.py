"""The section `data` of a header: who provided the training data and the initial weights, and on which terms."""

import os
from pathlib import Path
from typing import Any

from boneage_jax.errors import BoneAgeError
from boneage_jax.pretrained import imagenet
from boneage_jax.released import weights as released

RSNA = {
    "name": "rsna_bone_age",
    "title": "RSNA Pediatric Bone Age Machine Learning Challenge 2017 "
    "(Stanford University, University of Colorado, UCLA)",
    "url": "https://www.rsna.org/rsnai/ai-image-challenge/rsna-pediatric-bone-age-challenge-2017",
    "terms": "academic research, education and other non-commercial use; no attempt to identify anyone",
    "citation": "Halabi SS, Prevedello LM, Kalpathy-Cramer J, et al. The RSNA Pediatric Bone Age Machine Learning "
    "Challenge. Radiology 2019; 290(2):498-503",
}
PHANTOM = {
    "name": "phantom",
    "title": "phantoms: drawn hands of children who do not exist",
    "url": "",
    "terms": "none",
    "citation": "",
}
OTHER = "other"
"""The `name` of data that are neither RSNA's nor phantoms."""

_UNNAMED = "labelled radiographs of an unnamed source"
_PROVIDERS_TERMS = "set by the provider of the data"
_IMAGENET = {
    "name": imagenet.NAME,
    "title": "ImageNet (Deng et al., CVPR 2009)",
    "terms": "Apache License 2.0 (weights), non-commercial research and education (images)",
    "citation": "",
}


def describe(name: str, *, official: bool, source: str | None) -> dict[str, str]:
    """Name, title, address, terms and citation of the training data.

    Args:
        name: of the dataset, `data.name`.
        official: whether the training labels are the official ones of the RSNA challenge.
        source: who provided the data; None if the caller does not name it.

    Raises:
        BoneAgeError: `source` is empty.
    """
    if source is not None:
        title = " ".join(source.split())
        if not title:
            raise BoneAgeError("--source is empty; name who provided the data, or leave out the flag")
    elif name == PHANTOM["name"]:
        return PHANTOM
    elif official:
        return RSNA
    else:
        title = _UNNAMED
    return {"name": OTHER, "title": title, "url": "", "terms": _PROVIDERS_TERMS, "citation": ""}


def initial_weights(init_from: str) -> list[dict[str, Any]]:
    """Sources of the weights that `model.init_from` names: that file's, then those that it was initialised from.

    Returns:
        Name of the weights; title, terms and citation of the data that they were trained on. Sources that have been
        listed are not repeated. A file of another project, or one that no longer exists, has unknown terms.
    """
    if not init_from:
        return []
    if init_from == imagenet.NAME:
        return [_IMAGENET]
    path = released.find(init_from) if init_from in released.names() else Path(os.path.expanduser(init_from))
    data = released.read_header(path).data if released.is_released(path) else {}
    first = {
        "name": Path(init_from).name,
        "title": data.get("title", "data of an unknown source"),
        "terms": data.get("terms", "unknown"),
        "citation": data.get("citation", ""),
    }
    earlier = [one for one in data.get("initialised_from", []) if one["title"] != first["title"]]
    return [first, *earlier]
