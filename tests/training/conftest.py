import pytest
from runs import render_pair

from adatosk.train import Places


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return render_pair(tmp_path_factory.mktemp("data"))


@pytest.fixture
def places(data, tmp_path):
    return Places(data, tmp_path / "results", data / "cache", workers=0)
