from boneage_jax.benchmark import floor

FLOOR = floor.Floor(flops=200e9, bytes=30e9, flops_per_second=100e9, bytes_per_second=10e9)


def test_the_floor_is_the_larger_of_arithmetic_and_memory_time():
    assert (FLOOR.arithmetic_seconds, FLOOR.memory_seconds, FLOOR.seconds) == (2.0, 3.0, 3.0)


def test_the_table_shows_the_ratio_of_step_time_to_both_floors():
    arithmetic, memory = FLOOR.table(6.0).splitlines()[2:]
    assert "2000.00 ms, the step takes 3.0 times that" in arithmetic
    assert "3000.00 ms, the step takes 2.0 times that" in memory


def test_the_rates_of_this_machine_are_measured(monkeypatch):
    monkeypatch.setattr(floor, "_SIDE", {"cpu": 64, "other": 64})
    monkeypatch.setattr(floor, "_NUMBERS", 1024)
    floor.flops_per_second.cache_clear()
    floor.bytes_per_second.cache_clear()
    try:
        found = floor.measure("float32", flops=1e6, traffic=1e3)
        assert found.flops_per_second > 0
        assert found.bytes_per_second > 0
        assert found.seconds > 0
    finally:
        floor.flops_per_second.cache_clear()
        floor.bytes_per_second.cache_clear()
