import os
import signal
import threading

import pytest

from adatosk.utils.limits import LimitError, limits_named
from adatosk.utils.parallel import WorkerPool, available_cores, in_advance


def test_items_come_in_order_and_at_most_so_many_in_advance():
    made, gone = [], threading.Event()

    def items():
        for number in range(20):
            made.append(number)
            yield number
        gone.set()

    with in_advance(items(), ahead=2) as some:
        for place, item in enumerate(some):
            assert item == place and len(made) <= place + 4
    assert gone.is_set() and made == list(range(20))


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        yield 2
        raise ValueError("third")

    with in_advance(items()) as some:
        assert [next(some), next(some)] == [1, 2]
        with pytest.raises(ValueError, match="third"):
            next(some)


def test_whoever_leaves_early_stops_it():
    made, before = [], threading.active_count()

    def items():
        while True:
            made.append(0)
            yield 0

    with pytest.raises(KeyboardInterrupt), in_advance(items(), ahead=3) as some:
        next(some)
        raise KeyboardInterrupt
    count = len(made)
    assert count <= 5
    assert len(made) == count and threading.active_count() == before


def test_the_processes_of_a_node_share_its_cores(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert available_cores() == 64
    for processes, cores in (("8", 8), ("24", 2), ("100", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert available_cores() == cores


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows has no signal masks")
def test_processes_of_a_pool_never_receive_an_interruption():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with WorkerPool(1) as pool:
        assert signal.SIGINT in pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_a_killed_process_of_a_pool_is_told_from_one_that_failed():
    """The system kills when memory runs out; a script without the main guard fails, see test_files."""
    killed = pytest.raises(LimitError, match="a worker process was killed, as the system does when memory runs out")
    with killed, limits_named(), WorkerPool(2) as pool:
        pool.submit(signal.raise_signal, signal.SIGKILL).result()
    failed = pytest.raises(RuntimeError, match="a worker process ended with exit status 3, for the reason")
    with failed as error, limits_named(), WorkerPool(1) as pool:
        pool.submit(os._exit, 3).result()
    assert not isinstance(error.value, LimitError)
