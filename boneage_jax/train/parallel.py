"""Devices: how arrays are split over them and how functions are compiled for them. Nothing else knows.

A state is one tree, the same on every device, with no leading device axis; a batch is split along its first axis
over the processes (by the input pipeline) and over the devices of each process (here).
"""

import types
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from boneage_jax.errors import BoneAgeError

AXIS = "data"


def connect(coordinator: str, processes: int, process: int) -> None:
    """Joins this process with the others; nothing to do without a coordinator. Call it before anything else of jax."""
    if coordinator:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(coordinator, num_processes=processes, process_id=process)


def check_batch_size(name: str, batch_size: int) -> None:
    """Raises BoneAgeError unless the devices divide the batch evenly."""
    devices = jax.device_count()
    if batch_size < 1 or batch_size % devices:
        raise BoneAgeError(
            f"{name} is {batch_size}, which {devices} devices do not divide; take a multiple of {devices}"
        )


def replicate(tree: Any) -> Any:
    """A tree on the host as the arrays that compiled steps take and give back, so that they compile once."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), (AXIS,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def place(x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(place, tree)


def keep(tree: Any) -> Any:
    """Host arrays as [devices, ...], a whole copy on each device of this process: a part of a batch that stays."""
    devices = jax.local_devices()
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))

    def place(x: np.ndarray) -> jax.Array:
        copies = [jax.device_put(x[None], device) for device in devices]
        return jax.make_array_from_single_device_arrays((len(devices), *x.shape), sharding, copies)

    return jax.tree.map(place, tree)


def split(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays [b, ...] of this process to [devices, b / devices, ...]; a batch may hold dictionaries of arrays."""
    devices = jax.local_device_count()
    return jax.tree.map(lambda values: values.reshape(devices, -1, *values.shape[1:]), dict(batch))


def compile_step(step: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Compiles `(state, batch) -> (state, metrics)`; the state's memory is reused (the caller's copy is gone).

    Inside, `AXIS` is the mapped axis; both results must be the same on all devices.
    """
    mapped = jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0)
    # What `jax.pmap` compiles ahead of its call does not take the arrays of one of several processes.
    return _Recomputing(mapped) if jax.default_backend() == "cpu" and jax.process_count() == 1 else mapped


class _Recomputing:
    """A mapped function that XLA's CPU compiler lets compute again what it is to compute again.

    Left to itself, that compiler removes the barriers around such computations before it merges what is computed twice
    and before it schedules, so that everything is kept all the same. `jax.pmap` takes no options of the compiler. With
    several processes on CPUs, everything is kept.
    """

    OPTIONS = types.MappingProxyType({"xla_disable_hlo_passes": "cse_barrier_expander"})

    def __init__(self, mapped: Any):
        self._mapped = mapped
        self._compiled: Any = None

    def lower(self, *arguments: Any) -> Any:
        """As that of `jax.pmap`: its `compile()` takes the options along."""
        lowered = self._mapped.lower(*arguments)
        return types.SimpleNamespace(compile=partial(lowered.compile, compiler_options=dict(self.OPTIONS)))

    def __call__(self, *arguments: Any) -> Any:
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments)):
            return self._mapped(*arguments)  # looked at by a transformation, not run
        if self._compiled is None:
            self._compiled = self.lower(*arguments).compile()
        return self._compiled(*arguments)


def compile_inference(infer: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Compiles `(variables, batch) -> values [b]`; the values come back as [devices, b / devices]."""
    return jax.pmap(infer, axis_name=AXIS, in_axes=(None, 0), out_axes=0)


def gather(values: Any) -> np.ndarray:
    """[devices, b / devices] of every process to one array [global b] on the host, in the order of the devices."""
    if jax.process_count() > 1:
        local = np.concatenate([np.asarray(shard.data) for shard in values.addressable_shards])
        return multihost_utils.process_allgather(local.reshape(-1), tiled=True)
    return np.asarray(values).reshape(-1)


def gather_local(values: np.ndarray) -> np.ndarray:
    """[b] of every process to one array [global b], in the order of the processes."""
    return multihost_utils.process_allgather(values, tiled=True) if jax.process_count() > 1 else values


def to_host(tree: Any) -> Any:
    """A replicated tree as numpy arrays of its own memory (a view would change when a step reuses the buffer)."""
    return jax.tree.map(lambda x: np.array(x.addressable_data(0) if isinstance(x, jax.Array) else x), tree)
