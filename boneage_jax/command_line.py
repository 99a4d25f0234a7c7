"""The flags of `launch.py`: which configuration, and what is changed in it."""

import argparse
import re
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from boneage_jax import config as configuration
from boneage_jax.errors import BoneAgeError, did_you_mean

FLAGS = flags.FLAGS
flags.DEFINE_enum("mode", "train", ["train", "evaluate", "benchmark"], "What to do.")
flags.DEFINE_string("workdir", None, "Folder of the run; runs/<name of the configuration> by default.")


def parse(argv: list[str]) -> None:
    """Reads the flags; without --config, the configuration is the one stored in --workdir.

    Raises:
        BoneAgeError: a flag or a key that does not exist, a value of the wrong type, no configuration.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config", "-config")
    early.add_argument("--workdir", "-workdir")
    known, _ = early.parse_known_args(argv[1:])
    if known.config is not None and not Path(known.config.partition(":")[0]).is_file():
        raise BoneAgeError(f"--config names {known.config}, which is not a file; configs/ holds those to choose from")
    stored = Path(known.workdir, "config.json") if known.workdir else None
    if known.config is None and stored is not None and stored.exists():
        config_flags.DEFINE_config_dict("config", configuration.from_json(stored.read_text(), stored))
    else:
        config_flags.DEFINE_config_file("config", None, "The configuration.", lock_config=True)
    try:
        rest = FLAGS(argv)
    except (AttributeError, KeyError) as error:
        raise BoneAgeError(_unknown_key(" ".join(str(error.args[0]).split()), argv)) from error
    except (flags.Error, TypeError, ValueError, OSError, ImportError) as error:
        raise BoneAgeError(str(error).strip("'\"")) from error
    if len(rest) > 1:
        raise BoneAgeError(f"{rest[1]!r} is not a flag; settings are given as --config.section.key=value")
    if FLAGS.config is None:
        where = f"; {FLAGS.workdir} holds no run either" if FLAGS.workdir else ""
        raise BoneAgeError(f"no configuration is named{where}: add --config=configs/quickstart.py, for example")


def _unknown_key(reason: str, argv: list[str]) -> str:
    keys = configuration.keys(configuration.base())
    given = [match[1] for text in argv if (match := re.match(r"--?config\.([\w.]+)", text))]
    hints = "".join(did_you_mean(key, keys) for key in given if key not in keys)
    return f"the configuration has no such key: {reason}{hints}; boneage_jax/config.py lists all keys"
