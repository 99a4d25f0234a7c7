"""Trains, evaluates or benchmarks a network.

    python launch.py --config=configs/quickstart.py
    python launch.py --config=configs/xception.py --config.data.dir=DIR --workdir=runs/xception
    python launch.py --mode=evaluate --workdir=runs/xception --config.evaluate.split=test
    python launch.py --mode=benchmark --config=configs/convmixer.py

Any key of the configuration is a flag, as --config.train.batch_size=32.
"""

import argparse
import sys
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from boneage_jax import allocator
from boneage_jax import config as configuration
from boneage_jax.errors import BoneAgeError

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
        reason = str(error).strip("'\"")
        raise BoneAgeError(f"the configuration has no such key: {reason}; boneage_jax/config.py lists all") from error
    except (flags.Error, TypeError, ValueError, OSError, ImportError) as error:
        raise BoneAgeError(str(error).strip("'\"")) from error
    if len(rest) > 1:
        raise BoneAgeError(f"{rest[1]!r} is not a flag; settings are given as --config.section.key=value")
    if FLAGS.config is None:
        where = f"; {FLAGS.workdir} holds no run either" if FLAGS.workdir else ""
        raise BoneAgeError(f"no configuration is named{where}: add --config=configs/quickstart.py, for example")


def run() -> None:
    """Does what the flags say."""
    from boneage_jax.train import parallel  # jax starts here, after the flags have been found good

    config = FLAGS.config
    workdir = Path(FLAGS.workdir or Path("runs", config.name)).absolute()
    parallel.connect(**config.distributed.to_dict())
    if FLAGS.mode == "benchmark":
        from boneage_jax.benchmark.experiment import benchmark

        print(f"{benchmark(config, workdir).table()}\n\nwritten to {workdir / 'benchmark.json'}")
        return
    from boneage_jax.evaluate import report
    from boneage_jax.train import evaluation, loop

    if FLAGS.mode == "train":
        result = loop.train_and_evaluate(config, workdir)
    else:
        result = evaluation.evaluate_checkpoint(workdir, config)
    print(f"\n{report.table(result)}\n\nwritten to {workdir / 'evaluate' / result['split']}")


def main() -> int:
    """Exit status: 0; 1 after an error; 143 when a signal stopped the training and all is saved."""
    try:
        parse(sys.argv)
        logging.use_absl_handler()
        run()
    except BoneAgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "exit_status", 1)
    return 0


if __name__ == "__main__":
    allocator.keep_memory()
    sys.exit(main())
