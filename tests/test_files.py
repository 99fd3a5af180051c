import json

import pandas as pd
import pytest

from adatosk.utils.files import replacing, write_csv, write_json


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as part:
        part.write_text("half")
        assert not path.exists() and part.parent == path.parent
        part.write_text("whole")
    assert path.read_text() == "whole" and list(path.parent.iterdir()) == [path]


def test_after_an_error_the_old_file_is_there_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_json_and_tables_are_written_so(tmp_path):
    write_json(tmp_path / "a.json", {"é": [1, 2]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"é": [1, 2]}
    table = pd.DataFrame({"a": [1.5, 2.0]})
    write_csv(tmp_path / "a.csv", table, index=False, float_format="%.1f")
    assert (tmp_path / "a.csv").read_text() == "a\n1.5\n2.0\n"
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", object())
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"é": [1, 2]}
    assert len(list(tmp_path.iterdir())) == 2
