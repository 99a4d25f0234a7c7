"""Multi-device code, all in this module: how arrays are split over devices and functions compiled for them.

A state is one tree, replicated on every device, with no leading device axis; a batch is split along its first axis
over the processes (by the input pipeline) and over the devices of each process (here).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from boneage_jax.errors import BoneAgeError

AXIS = "data"

# By default, XLA's CPU compiler removes the barriers around rematerialised computations before it merges common
# subexpressions and before it schedules, so that nothing would be rematerialised.
_REMATERIALISING = {"xla_disable_hlo_passes": "cse_barrier_expander"}


def connect(coordinator: str, processes: int, process: int) -> None:
    """Connects this process to the others; does nothing without a coordinator. Call it before any other use of jax."""
    if coordinator:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(coordinator, num_processes=processes, process_id=process)


def check_batch_size(name: str, batch_size: int) -> None:
    """Raises BoneAgeError unless the devices divide the batch evenly."""
    devices = jax.device_count()
    if batch_size < 1 or batch_size % devices:
        raise BoneAgeError(
            f"{name} is {batch_size}, which is not divisible by {devices} devices; use a multiple of {devices}"
        )


def replicate(tree: Any) -> Any:
    """Replicates a host tree with the sharding that compiled steps take and return, so that they compile only once."""
    sharding = NamedSharding(Mesh(jax.devices(), (AXIS,)), P())

    def place(x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(place, tree)


def keep(tree: Any) -> Any:
    """Copies host arrays in full to each device of this process, as [devices, ...]: a part of a batch that stays."""
    sharding = _over_devices()

    def place(x: np.ndarray) -> jax.Array:
        copies = [jax.device_put(x[None], device) for device in jax.local_devices()]
        return jax.make_array_from_single_device_arrays((sharding.mesh.size, *x.shape), sharding, copies)

    return jax.tree.map(place, tree)


def split(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Splits this process's arrays [b, ...] into [devices, b / devices, ...]; a batch may hold dictionaries."""
    local = jax.local_device_count()
    parts = jax.tree.map(lambda values: values.reshape(local, -1, *values.shape[1:]), dict(batch))
    if _by_pmap() or jax.process_count() == 1:
        return parts
    return jax.tree.map(functools.partial(jax.make_array_from_process_local_data, _over_devices()), parts)


def mean(tree: Any) -> Any:
    """Averages a tree over the devices, inside a compiled step; with one device no copy is made."""
    return tree if jax.lax.axis_size(AXIS) == 1 else jax.lax.pmean(tree, AXIS)


def compile_step(step: Callable[[Any, Any], tuple[Any, Any]]) -> Any:
    """Compiles `(state, batch) -> (state, metrics)`; the state is donated, so the caller's copy becomes invalid.

    Inside, `AXIS` is the mapped axis; both results must be the same on all devices.
    """
    if _by_pmap():
        return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0)
    return jax.jit(_mapped(step, P()), donate_argnums=0, compiler_options=_REMATERIALISING)


def compile_inference(infer: Callable[[Any, Any], Any]) -> Any:
    """Compiles `(variables, batch) -> values [b]`; the values come back as [devices, b / devices]."""
    if _by_pmap():
        return jax.pmap(infer, axis_name=AXIS, in_axes=(None, 0), out_axes=0)

    @functools.wraps(infer)
    def rows(variables: Any, batch: Any) -> Any:
        return jax.tree.map(lambda values: values[None], infer(variables, batch))

    return jax.jit(_mapped(rows, P(AXIS)))


def _by_pmap() -> bool:
    """Whether to use `jax.pmap`: on CPUs, `jax.shard_map` replaces it, because `jax.pmap` takes no compiler options."""
    return jax.default_backend() != "cpu"


def _mapped(function: Callable[[Any, Any], Any], out_specs: P) -> Callable[[Any, Any], Any]:
    """`function(replicated, batch)` on every device, each with its part of the batch."""

    @functools.wraps(function)
    def on_each_device(replicated: Any, batch: Any) -> Any:
        return function(replicated, jax.tree.map(functools.partial(jnp.squeeze, axis=0), batch))

    mesh = _over_devices().mesh
    return jax.shard_map(on_each_device, mesh=mesh, in_specs=(P(), P(AXIS)), out_specs=out_specs, check_vma=False)


def _over_devices() -> NamedSharding:
    """Sharding of a batch's first axis: over all devices, or with `jax.pmap` over those of this process."""
    return NamedSharding(Mesh(jax.local_devices() if _by_pmap() else jax.devices(), (AXIS,)), P(AXIS))


def gather(values: Any) -> np.ndarray:
    """Gathers [devices, b / devices, ...] of every process as [global b, ...] on the host, in device order."""
    rows = (-1, *values.shape[2:])
    if jax.process_count() > 1:
        local = np.concatenate([np.asarray(shard.data) for shard in values.addressable_shards])
        return multihost_utils.process_allgather(local.reshape(rows), tiled=True)
    return np.asarray(values).reshape(rows)


def gather_local(values: np.ndarray) -> np.ndarray:
    """Gathers [b] of every process as one array [global b], in process order."""
    return multihost_utils.process_allgather(values, tiled=True) if jax.process_count() > 1 else values


def to_host(tree: Any) -> Any:
    """Copies a replicated tree to numpy arrays (a view would change when a step reuses the buffer)."""
    return jax.tree.map(lambda x: np.array(x.addressable_data(0) if isinstance(x, jax.Array) else x), tree)
