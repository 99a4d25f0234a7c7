"""BoNet; without a heat map it is InceptionV3, so it has no golden arrays of its own."""

from tests.models.families import Family

FAMILY = Family(
    # keras.applications.InceptionV3 without top: 21,802,784, of which 34,432 running statistics.
    sizes={"bonet": (21_768_352, 34_432)},
    small={"bonet": {"heatmap": True}},
    large=True,
)
