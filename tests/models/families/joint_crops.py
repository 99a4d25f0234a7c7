"""EfficientNet-Lite0 on crops of one channel: its stem has two thirds fewer weights."""

from tests.models.families import Family

FAMILY = Family(
    sizes={"joint_crops": (4_652_008 - 1000 * 1281 - 2 * 3 * 3 * 32, 42_016)},
    small={"joint_crops": {"variant": "tiny_lite"}},
    own=True,
    padded=True,
)
