"""Where the time of a step goes: traces it with JAX's profiler and adds up the time of each operation."""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.profiler import ProfileData

from boneage_jax.errors import BoneAgeError

# An instruction of a compiled module, with the place in the model that it came from.
_INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.-]+) = .*metadata=\{[^}]*op_name="([^"]*)"', re.MULTILINE)
# Wrappers that JAX's transformations add to the names of the layers.
_WRAPPED = re.compile(r"(?:jit|jvp|transpose|vmap|checkpoint|remat|shard_map|pmap|rematted_computation)\(([^()]*)\)")


@dataclasses.dataclass(frozen=True)
class Operation:
    """One instruction of the compiled step."""

    name: str  # as XLA names it
    source: str  # layer and primitive it came from, "" if XLA has no record of it
    seconds: float  # per step, excluding nested operations; summed over threads and devices
    share: float  # of all operations


@dataclasses.dataclass(frozen=True)
class Profile:
    """The operations of a step, the costliest first, and the folder of the trace (TensorBoard, Perfetto)."""

    operations: tuple[Operation, ...]
    folder: str

    def table(self, count: int = 10) -> str:
        """The costliest operations, one per line."""
        head = f"  {'share':>6}{'ms':>10}  operation"
        lines = [f"  {o.share:6.1%}{1000 * o.seconds:10.3f}  {o.name}  {o.source}" for o in self.operations[:count]]
        return "\n".join([f"The {len(lines)} costliest operations of a training step", "", head, *lines])


def record(step: Callable[[], Any], folder: Path, *, steps: int, program_text: str) -> Profile:
    """Traces `steps` steps into `folder`.

    Args:
        step: runs one step and returns arrays that are ready when it is done.
        folder: folder for the trace; earlier traces in it are kept.
        steps: number of steps; the seconds are the mean over them.
        program_text: the compiled step, `compiled.as_text()`, which maps its operations to layers.

    Raises:
        BoneAgeError: the profiler wrote no trace, or one without operations.
    """
    before = _traces(folder)
    with jax.profiler.trace(str(folder)):
        for _ in range(steps):
            jax.block_until_ready(step())
    written = [path for path, changed in _traces(folder).items() if before.get(path) != changed]
    if not written:
        raise BoneAgeError(f"the profiler wrote no trace to {folder}; is the disk full?")
    return summarise(ProfileData.from_file(str(written[0])), str(folder), steps=steps, program_text=program_text)


def _traces(folder: Path) -> dict[Path, int]:
    """The traces in a folder, with the time in ns at which each was last written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.xplane.pb")}


def summarise(trace: Any, folder: str, *, steps: int, program_text: str) -> Profile:
    """Adds up the events of a trace (a `ProfileData` or a similar object) that are operations of the program."""
    sources = {name: _layer(source) for name, source in _INSTRUCTION.findall(program_text)}
    seconds: dict[str, float] = defaultdict(float)
    for plane in trace.planes:
        for line in plane.lines:
            for name, nanoseconds in _own_times(_operations(line)):
                seconds[name] += nanoseconds / 1e9 / steps
    total = sum(seconds.values())
    if not total:
        raise BoneAgeError(
            f"the trace in {folder} contains no operations: this JAX version or device does not report them"
        )
    costliest = sorted(seconds.items(), key=lambda item: -item[1])
    return Profile(tuple(Operation(n, sources.get(n, ""), s, s / total) for n, s in costliest), folder)


def _operations(line: Any) -> Iterator[tuple[float, float, str]]:
    """Start, end (ns) and name of the events on one thread or stream that carry out an instruction."""
    for event in line.events:
        stats = dict(event.stats)
        if "hlo_op" in stats:
            yield event.start_ns, event.start_ns + event.duration_ns, str(stats["hlo_op"])


def _own_times(events: Iterable[tuple[float, float, str]]) -> Iterator[tuple[str, float]]:
    """Name and nanoseconds of each event, excluding events nested in it (such as the body of a loop)."""
    inside: list[tuple[float, str, list[float]]] = []  # end, name, [own time], of the events that are open
    for start, end, name in sorted(events, key=lambda event: (event[0], -event[1])):
        while inside and inside[-1][0] <= start:
            _, done, own = inside.pop()
            yield done, own[0]
        if inside:
            inside[-1][2][0] -= end - start
        inside.append((end, name, [end - start]))
    yield from ((name, own[0]) for _, name, own in inside)


def _layer(source: str) -> str:
    """A source such as "jit(step)/transpose(jvp(Network))/trunk/block1/dot_general" without JAX's wrappers."""
    before = None
    while source != before:
        before, source = source, _WRAPPED.sub(r"\1", source)
    return "/".join(part for part in source.split("/") if part)
