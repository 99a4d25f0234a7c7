import hashlib
import random

import pytest

from boneage_jax.data.splits import hospital, validation_tenth


def children():
    """A synthetic label table with ids and proportions like RSNA's."""
    ids = [*range(1377, 4560, 3), *range(4560, 15612, 3)]
    return [(str(n), int(n * 7919 % 100 < 54), float(1 + n * 104729 % 228)) for n in ids]


def tenth(rows):
    return validation_tenth(*zip(*rows, strict=True))


def test_the_ids_are_pinned():
    held = tenth(children())
    digest = hashlib.sha256("\n".join(sorted(held)).encode()).hexdigest()
    assert (len(held), digest[:16]) == (474, "e02d904c30629dc9")


def test_the_order_of_the_rows_does_not_matter():
    rows = children()
    expected = tenth(rows)
    random.Random(0).shuffle(rows)
    assert tenth(rows) == expected


@pytest.mark.parametrize("part", [lambda r: hospital(r[0]), lambda r: r[1], lambda r: r[2] // 48])
def test_every_group_gives_a_tenth(part):
    rows = children()
    held = tenth(rows)
    for group in {part(row) for row in rows}:
        members = [row[0] for row in rows if part(row) == group]
        assert len(held & set(members)) / len(members) == pytest.approx(0.1, abs=0.02)


def test_hospital_by_id():
    expected = ["Stanford", "Stanford", "Colorado", "", ""]
    assert [hospital(i) for i in ("1377", "4559", "4560", "train-1", "")] == expected
