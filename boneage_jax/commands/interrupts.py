"""Ctrl-C and SIGTERM while results are written: the one at hand is finished, so that every format stays valid."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from boneage_jax import program


class Interrupts:
    """Turns the first SIGINT or SIGTERM into `program.Signalled`, but not in the middle of `held`.

        with Interrupts() as interrupts:
            for result in results:
                with interrupts.held():
                    print(result)

    Signals that follow the first one do what they did before, so that a program that hangs can be ended.

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
        """A part that is finished before the interrupt is raised."""
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
