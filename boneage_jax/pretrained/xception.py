"""Names of Xception's weights in `keras.applications`."""

from boneage_jax.models.xception import Xception
from boneage_jax.pretrained.names import KERAS_NORM, leaves


def keras_names(trunk: Xception) -> dict[str, str]:
    """Maps our leaves to Keras' "<layer>/<variable>"; Keras does not name the four shortcuts, only numbers them."""
    shortcuts = ("block2", "block3", "block4", f"block{5 + trunk.middle_blocks}")
    names = {}
    for path in leaves(trunk):
        *layers, leaf = path
        kind = layers.pop() if layers[-1] in ("depthwise", "pointwise") else ""
        variable = f"{kind}_kernel" if kind else KERAS_NORM.get(leaf, leaf)
        if layers[-1] in ("shortcut", "shortcut_bn"):
            number = shortcuts.index(layers[0])
            layer = ("conv2d" if layers[-1] == "shortcut" else "batch_normalization") + (f"_{number}" if number else "")
        else:
            layer = "_".join(layers)
        names["/".join(path)] = f"{layer}/{variable}"
    return names
