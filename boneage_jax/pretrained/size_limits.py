"""An upper bound on the size that weights files may declare: a few bytes can describe terabytes of zeros."""

from boneage_jax.errors import BoneAgeError
from boneage_jax.released.weights import LARGEST


def refuse_large(size: int) -> None:
    """Raises BoneAgeError for more bytes than any network has."""
    if size > LARGEST:
        raise BoneAgeError(
            f"it contains {size:,} bytes, more than any supported network has ({LARGEST:,}); use another file"
        )
