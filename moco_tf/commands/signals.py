"""Signals that ask a run to stop: SIGTERM, as a preempted machine sends it, and Ctrl-C."""

import signal

from moco_tf.log import log

NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class StopRequest:
    """Turns SIGTERM and the first Ctrl-C into a request to stop, so that the run saves first.

    A second Ctrl-C ends the process at once. A process that was started to ignore Ctrl-C, as shells
    start those in the background, goes on ignoring it.

    Attributes:
        number: number of the signal that was received; None before.
    """

    def __init__(self):
        self.number = None

    def listen(self) -> "StopRequest":
        """Starts to receive signals; returns the request itself."""
        signal.signal(signal.SIGTERM, self._receive)
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._receive)
        return self

    def _receive(self, number, _):
        self.number = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            log.warning("Stopping after this step, to save it. Ctrl-C again ends the run at once.")

    def __call__(self) -> bool:
        """Whether the run was asked to stop."""
        return self.number is not None


STOP = StopRequest()
