import signal

import pytest

from mezzotint.runtime import interrupt as module
from mezzotint.runtime.interrupt import Interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_request_may_come_twice_and_a_later_one_interrupts(monkeypatch, number):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    before = signal.getsignal(number)
    with Interrupt() as heard:
        assert not heard.requested
        for later in (0.0, 0.05, 0.5):
            now[0] = 100.0 + later
            signal.raise_signal(number)
            assert heard.requested
        now[0] = 102.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before
