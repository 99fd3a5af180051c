from adatosk.utils.parallel import available_cores


def test_the_processes_of_a_node_share_its_cores(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert available_cores() == 64
    for processes, cores in (("8", 8), ("24", 2), ("100", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert available_cores() == cores
