"""The cost of a compiled program: compile time, memory and parameters; and the arithmetic of a model."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled function with its sizes from XLA's buffer assignment (bytes per device)."""

    call: Any  # the compiled function: calling it never compiles again
    compile_seconds: float  # tracing, lowering and compilation
    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    aliased_bytes: int  # outputs that reuse the memory of donated arguments

    @property
    def memory_bytes(self) -> int:
        """Bytes that one device holds while the program runs.

        This is the sum of the sizes, because XLA's own `peak_memory_in_bytes` omits the temporaries on the CPU.
        """
        return self.argument_bytes + self.output_bytes + self.temporary_bytes - self.aliased_bytes


def compile_program(function: Any, *arguments: Any) -> Program:
    """Compiles a function made by `jax.jit` or `jax.pmap` for arguments of these shapes.

    With a persistent compilation cache, the time is that of loading the program from the cache.
    """
    start = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    return Program(
        call=compiled,
        compile_seconds=seconds,
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        aliased_bytes=memory.alias_size_in_bytes,
    )


def bytes_accessed(program: Program) -> float:
    """Bytes that the program's instructions read and write on one device, by XLA's analysis after fusion."""
    found = program.call.cost_analysis()
    return float((found[0] if isinstance(found, list) else found)["bytes accessed"])


def device_peak_bytes() -> int | None:
    """Most bytes in use on one device since the process started; None where it is not counted (CPU)."""
    statistics = [device.memory_stats() for device in jax.local_devices()]
    peaks = [found["peak_bytes_in_use"] for found in statistics if found and "peak_bytes_in_use" in found]
    return max(peaks, default=None)


def count_parameters(tree: Any) -> int:
    """Number of scalars in a tree of arrays."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def count_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Floating-point operations of the convolutions and matrix products of `function(*arguments)`.

    A multiply-add counts as 2; taps on padding count too, as in the papers. Operations are counted on the jaxpr,
    because XLA's cost analysis depends on the platform and on how it rewrote a convolution. If platforms use
    different forms of the same product, the form with the most operations in such products is counted.

    Raises:
        ValueError: for products inside a `while` loop, because its number of iterations is unknown.
    """
    return _total(_jaxpr(function, arguments), _flops)


def count_kernel_bytes(function: Callable[..., Any], *arguments: Any) -> int:
    """Bytes read and written in `function(*arguments)` by this package's own kernels, which XLA's analysis omits.

    Raises:
        ValueError: for kernels inside a `while` loop, because its number of iterations is unknown.
    """
    return _total(_jaxpr(function, arguments), _kernel_bytes)


def _total(jaxpr: core.Jaxpr, of_equation: Callable[[core.JaxprEqn], int]) -> int:
    """The sum over all equations, including nested ones; of several branches, the largest counts."""
    return sum(of_equation(equation) + _inside(equation, of_equation) for equation in jaxpr.eqns)


def _inside(equation: core.JaxprEqn, of_equation: Callable[[core.JaxprEqn], int]) -> int:
    name, parameters = equation.primitive.name, equation.params
    inner = [_total(part, of_equation) for part in _inner(parameters)]
    if name == "cond":
        return max(inner)
    if name == "while" and any(inner):
        raise ValueError("operations inside a while loop cannot be counted: its number of iterations is unknown")
    return _repeats(name, parameters) * sum(inner)


def _kernel_bytes(equation: core.JaxprEqn) -> int:
    if equation.primitive.name != "ffi_call":
        return 0
    buffers: list[Any] = [variable.aval for variable in (*equation.invars, *equation.outvars)]
    return sum(math.prod(buffer.shape) * buffer.dtype.itemsize for buffer in buffers)


def _flops(equation: core.JaxprEqn) -> int:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        shape = _shape(equation.invars[0])
        return 2 * math.prod(_shape(equation.outvars[0])) * math.prod(shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = _shape(equation.invars[1])
        per_output = math.prod(kernel) // kernel[parameters["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(_shape(equation.outvars[0])) * per_output
    return 0


def _shape(operand: Any) -> tuple[int, ...]:
    return operand.aval.shape


def _inner(parameters: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """The jaxprs inside an equation: of jit, remat, custom derivatives, scan, cond, shard_map."""
    for value in parameters.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, core.ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, core.Jaxpr):
                yield part


def _repeats(name: str, parameters: dict[str, Any]) -> int:
    """How often the inner jaxpr of an equation runs, over all devices."""
    if name == "scan":
        return parameters["length"]
    if name == "shard_map":
        return parameters["mesh"].size  # every axis is manual, as `jax.pmap` makes it
    return 1


def _jaxpr(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """The jaxpr of a function; a jitted function is traced directly, as its compiler options cannot be nested."""
    if hasattr(function, "trace"):
        return function.trace(*arguments).jaxpr.jaxpr
    return jax.make_jaxpr(function)(*arguments).jaxpr
