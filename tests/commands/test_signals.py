"""Ctrl-C asks a run to stop; a second one ends it at once."""

import signal

import pytest

from moco_tf.commands.signals import StopRequest


@pytest.fixture(autouse=True)
def restored():
    """The handlers of this process afterwards."""
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_the_second_ctrl_c_ends_at_once():
    request = StopRequest().listen()
    assert not request()
    signal.raise_signal(signal.SIGINT)
    assert request() and request.number == signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_sigterm_may_come_twice():
    request = StopRequest().listen()
    for _ in range(2):
        signal.raise_signal(signal.SIGTERM)
    assert request.number == signal.SIGTERM


def test_a_process_in_the_background_goes_on_ignoring_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request = StopRequest().listen()
    signal.raise_signal(signal.SIGINT)
    assert not request()
