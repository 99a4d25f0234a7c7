"""Trains, evaluates or benchmarks a network.

    python launch.py --config=configs/quickstart.py
    python launch.py --config=configs/xception.py --config.data.dir=DIR --workdir=runs/xception
    python launch.py --mode=evaluate --workdir=runs/xception --config.evaluate.split=test
    python launch.py --mode=benchmark --config=configs/convmixer.py

Every key of the configuration is a flag, for example --config.train.batch_size=32.

On Linux, the program first restarts itself with other settings of the C library's memory allocator, which halves the
step time of a small network (boneage_jax/allocator.py). If GLIBC_TUNABLES is already set, even to an empty string, its
value is kept and the program does not restart.
"""

import sys
from pathlib import Path

from absl import logging

from boneage_jax import allocator, program
from boneage_jax.command_line import FLAGS, parse, refuse_ignored


def run() -> int:
    """Runs the mode selected by the flags; returns the exit status."""
    parse(sys.argv)
    logging.use_absl_handler()
    from boneage_jax import compilation  # imports jax, only after the flags have been validated
    from boneage_jax.train import parallel

    config = FLAGS.config
    workdir = Path(FLAGS.workdir or Path("runs", config.name)).absolute()
    compilation.use_cache(compilation.cache_folder(config.compilation_cache))
    parallel.connect(**config.distributed.to_dict())
    if FLAGS.mode == "benchmark":
        from boneage_jax.benchmark.experiment import benchmark

        print(f"{benchmark(config, workdir).table()}\n\nwritten to {workdir / 'benchmark.json'}")
        return 0
    from boneage_jax.evaluate import report
    from boneage_jax.train import evaluation, loop

    if FLAGS.mode == "train":
        result = loop.train_and_evaluate(config, workdir)
    else:
        refuse_ignored(workdir, config)
        result = evaluation.evaluate_checkpoint(workdir, config)
    print(f"\n{report.table(result)}\n\nwritten to {workdir / 'evaluate' / result['split']}")
    return 0


if __name__ == "__main__":
    allocator.keep_memory()
    program.leave(lambda: program.run(run))
