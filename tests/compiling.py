"""How tests compile."""

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""`compiler_options` that halve the time to compile, which is most of what tests of whole networks take."""
