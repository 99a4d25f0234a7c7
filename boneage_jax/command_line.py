"""The flags of `launch.py`: the configuration and changes to its settings."""

import argparse
import re
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from boneage_jax import config as configuration
from boneage_jax.errors import BoneAgeError, did_you_mean

FLAGS = flags.FLAGS
_EXPECTED = {
    "invalid literal for int()": "a whole number",
    "could not convert string to float": "a number",
    "Non-boolean argument": "true or false",
    "is not a dict": "one of its keys, as --config.section.key=value",
}
"""The expected kind of value, by a part of the message of the error that rejects it."""
_OF_THE_NETWORK = ("model.", "preprocess.", "data.inputs.")
_OF_ITS_TRAINING = ("model.init_from:", "model.remat:")

flags.DEFINE_enum("mode", "train", ["train", "evaluate", "benchmark"], "What to do.")
flags.DEFINE_string("workdir", None, "Folder of the run; runs/<name of the configuration> by default.")


def parse(argv: list[str]) -> None:
    """Reads the flags; without --config, the configuration is the one stored in --workdir.

    Raises:
        BoneAgeError: a flag or a key that does not exist, a value of the wrong type or out of range, no configuration.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("config", "workdir"):
        early.add_argument(f"--{name}", f"-{name}", nargs="?", const="")  # absl's parser reports a missing value
    known, _ = early.parse_known_args(argv[1:])
    if known.config is not None and not Path(known.config.partition(":")[0]).is_file():
        raise BoneAgeError(f"--config is {known.config or 'empty'}, which is not a file; choose one from configs/")
    stored = Path(known.workdir, "config.json") if known.workdir else None
    if known.config is None and stored is not None and stored.exists():
        config_flags.DEFINE_config_dict("config", configuration.from_json(stored.read_bytes(), stored))
    else:
        config_flags.DEFINE_config_file("config", None, "The configuration.", lock_config=True)
    try:
        rest = FLAGS(argv)
    except (AttributeError, KeyError) as error:
        raise BoneAgeError(_unknown_key(" ".join(str(error.args[0]).split()), argv)) from error
    except flags.UnrecognizedFlagError as error:
        raise BoneAgeError(
            f"{error}; the flags are --mode, --workdir, --config=FILE and, for each key in boneage_jax/config.py, "
            "--config.section.key=value"
        ) from error
    except (flags.Error, TypeError, ValueError, OSError, ImportError) as error:
        raise BoneAgeError(_bad_value(str(error))) from error
    if len(rest) > 1:
        raise BoneAgeError(f"{rest[1]!r} is not a flag; settings are given as --config.section.key=value")
    if FLAGS.config is None:
        where = f"; {FLAGS.workdir} contains no run either" if FLAGS.workdir else ""
        raise BoneAgeError(f"no configuration is given{where}: add --config=configs/quickstart.py, for example")
    configuration.check(FLAGS.config)


def refuse_ignored(workdir: Path, given: ConfigDict) -> None:
    """Raises BoneAgeError if settings are given that an evaluation of the run in `workdir` would ignore."""
    if given.checkpoint.step >= 0:
        raise BoneAgeError("checkpoint.step is for --mode=train; an evaluation uses the best checkpoint")
    path = workdir / "config.json"
    if not path.exists():
        return
    stored = configuration.from_json(path.read_bytes(), path)
    different = [
        one
        for one in configuration.differences(stored, given)
        if one.startswith(_OF_THE_NETWORK) and not one.startswith(_OF_ITS_TRAINING)
    ]
    if different:
        raise BoneAgeError(
            f"the run was trained with other settings ({'; '.join(different)}); an evaluation can only change those of "
            "data and evaluate"
        )


def _unknown_key(reason: str, argv: list[str]) -> str:
    known = configuration.keys(configuration.base())
    given = [match[1] for text in argv if (match := re.match(r"--?config\.([\w.]+)", text))]
    unknown = [key for key in given if key not in known]
    # Keys of model.options and similar sections may be defined only in the file: report those that the error names.
    named = [key for key in unknown if key in reason or any(f"'{part}'" in reason for part in key.split("."))]
    sentences = [f"the configuration has no key {key}{did_you_mean(key, known)}" for key in named or unknown]
    return "; ".join([*(sentences or [reason]), "boneage_jax/config.py lists all keys"])


def _bad_value(reason: str) -> str:
    """The reason in plain words if it concerns a setting or an error in a configuration; otherwise unchanged."""
    if failed := re.match(r"flag --config=(.*?): Error whilst parsing config file:.*\n(.+)", reason.strip(), re.DOTALL):
        hint = "leave out the part after the colon" if ":" in failed[1] else "correct the file"
        return f"the configuration {failed[1]} cannot be loaded ({failed[2]}); {hint}, or choose another from configs/"
    match = re.match(r"flag --config\.([\w.]+)=(.*?): (.*)", reason, re.DOTALL)
    expected = next((words for part, words in _EXPECTED.items() if match and part in match[3]), None)
    return f"{match[1]} is {match[2] or 'empty'}, expected {expected}" if match and expected else reason
