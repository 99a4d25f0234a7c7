"""Handles Ctrl-C and SIGTERM while results are written: finishes the current result, so that the output is valid."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from boneage_jax import program


class Interrupts:
    """Turns the first SIGINT or SIGTERM into `program.Signalled`, delayed until the end of a `held` block.

        with Interrupts() as interrupts:
            for result in results:
                with interrupts.held():
                    print(result)

    After the first signal, the previous handlers are restored, so that a program that hangs can be stopped.

    Attributes:
      received: the signal, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._holding = False

    def __enter__(self) -> "Interrupts":
        self._before = {one: signal.signal(one, self._receive) for one in program.STOPPING}
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """A block that is completed before the interrupt is raised."""
        before, self._holding = self.received, True
        try:
            yield
        finally:
            self._holding = False
        if self.received is not None and before is None:
            raise program.Signalled(self.received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()
        if not self._holding:
            raise program.Signalled(number)

    def _restore(self) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)
