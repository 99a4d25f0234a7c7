from benchmarks import sample


def test_places_are_spaced_evenly_from_the_first_to_the_last():
    assert sample.evenly_spaced(9, 3) == [0, 4, 8]
    assert sample.evenly_spaced(5, 1) == [0]


def test_no_item_is_used_twice():
    for total in range(1, 40):
        for count in range(1, 60):
            places = sample.evenly_spaced(total, count)
            assert len(places) == len(set(places)) == min(total, count)
            assert set(places) <= set(range(total))
