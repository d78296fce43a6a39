from __future__ import annotations

import os
import signal

import pytest
import trio

from agentd.locking import SIGNAL, watch_signal


async def test_every_signal_locks(lock):
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_signal, lock, signals)
            for count in (1, 2):
                os.kill(os.getpid(), signal.SIGUSR1)
                with trio.fail_after(30):
                    while len(lock.finished) < count:
                        await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert lock.reasons == [SIGNAL, SIGNAL]


async def test_errors_of_locking_are_raised(lock):
    async def fail():
        raise OSError

    sending, signals = trio.open_memory_channel[int](1)
    sending.send_nowait(signal.SIGUSR1)
    lock.meanwhile = fail
    with pytest.raises(OSError):
        await watch_signal(lock, signals)


async def test_it_returns_when_there_are_no_more(lock):
    sending, signals = trio.open_memory_channel[int](1)
    sending.send_nowait(signal.SIGUSR1)
    sending.close()
    await watch_signal(lock, signals)
    assert lock.finished == [SIGNAL]
