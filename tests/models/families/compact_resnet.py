"""CompactResNet."""

from tests.models.families import Family

FAMILY = Family(
    # 9 c d for each 3x3 convolution, 4 c d for each merge, four values per normalised channel.
    sizes={"compact_resnet": (3_590_592, 5_184)},
    small={"compact_resnet": {"widths": (16, 32), "blocks": (1, 1), "drop_path": 0.2}},
    own=True,
    padded=True,
    identity_at_start=True,
)
