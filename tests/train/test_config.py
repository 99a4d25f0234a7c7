import json

import pytest

from boneage_jax import config as configuration
from boneage_jax.errors import BoneAgeError
from tests.train.tiny_run import get_config


def test_a_configuration_round_trips_through_json():
    config = get_config()
    back = configuration.from_json(configuration.to_json(config), "config.json")

    assert configuration.to_json(back) == configuration.to_json(config)
    assert configuration.differences(back, config) == []
    assert back.model.options.to_dict() == config.model.options.to_dict()
    assert back.data.options.count.train == config.data.options.count.train
    assert back.preprocess.exposure == (1.0, 99.0)


def test_disabled_settings_round_trip_through_json():
    config = get_config()
    config.preprocess.exposure = (0.0, 100.0)
    config.preprocess.clahe_clips = ()
    back = configuration.from_json(configuration.to_json(config), "config.json")

    assert back.preprocess.exposure == (0.0, 100.0)
    assert tuple(back.preprocess.clahe_clips) == ()


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("train.batch_size", -1, "1 or more"),
        ("train.epochs", 0, "1 or more"),
        ("train.log_every", 0, "1 or more"),
        ("data.workers", -2, "0 to 1024"),
        ("optimizer.learning_rate", float("nan"), "0 or more"),
        ("optimizer.warmup_epochs", float("inf"), "0 to 1000000"),
        ("optimizer.plateau.factor", 1.5, "1e-06 to 1"),
        ("checkpoint.step", -2, "-1 or more"),
    ],
)
def test_out_of_range_values_are_refused_by_key_and_value(key, value, expected):
    config = get_config()
    configuration.check(config)
    with config.unlocked():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(BoneAgeError, match=f"{key} is {value}, expected {expected}"):
        configuration.check(config)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"processes": 2}, r"distributed\.coordinator is empty, expected HOST:PORT for 2 processes"),
        ({"coordinator": "host:1", "processes": 2, "process": 2}, r"distributed\.process is 2, expected 0 to 1"),
    ],
)
def test_incomplete_settings_of_several_processes_are_refused(settings, expected):
    config = get_config()
    config.distributed.update(settings)
    with pytest.raises(BoneAgeError, match=expected):
        configuration.check(config)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"data": 3}', b'{"name": "\xff"}'])
def test_invalid_configuration_text_is_refused_by_file_name(text):
    with pytest.raises(BoneAgeError, match=r"here/config.json is not a configuration of this version"):
        configuration.from_json(text, "here/config.json")


def test_a_key_of_another_version_is_refused_by_name():
    fields = json.loads(configuration.to_json(get_config()))
    fields["train"]["momentum"] = 0.9
    with pytest.raises(BoneAgeError, match="momentum"):
        configuration.from_json(json.dumps(fields), "config.json")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("data", "dir", "elsewhere"),
        ("data", "cache", "elsewhere"),
        ("data", "workers", 4),
        ("train", "epochs", 50),
        ("train", "checkpoint_every", 7),
        ("evaluate", "split", "test"),
        ("benchmark", "steps", 3),
        ("distributed", "processes", 2),
    ],
)
def test_paths_resources_and_duration_are_not_differences(section, key, value):
    given = get_config()
    given[section][key] = value
    assert configuration.differences(get_config(), given) == []


def test_settings_that_change_the_computation_are_differences():
    given = get_config()
    given.seed = 1
    given.model.options.dim = 16
    given.data.options.count.train = 99
    assert configuration.differences(get_config(), given) == [
        "data.options.count.train: 24, now 99",
        "model.options.dim: 8, now 16",
        "seed: 0, now 1",
    ]


def test_epochs_are_a_difference_under_a_cosine_schedule():
    stored, given = get_config(), get_config()
    stored.optimizer.schedule = given.optimizer.schedule = "cosine"
    given.train.epochs = 50
    assert configuration.differences(stored, given) == ["train.epochs: 2, now 50"]
