import ast
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from adatosk.datasets import DATASETS, load_card
from adatosk.utils.files import replacing, write_csv, write_json
from adatosk.utils.project import PROJECT
from adatosk.utils.tables import read_csv


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_killed_process_left_goes_when_the_file_is_written_again(tmp_path):
    path, living = tmp_path / "a[1].txt", tmp_path / "a[1].txt2"
    for target in (path, living):
        child = os.fork()
        if not child:
            with replacing(target) as part:
                part.write_text("half")
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
    left, other = sorted(tmp_path.iterdir())
    # What another machine writes, or a process that lives, stays, and so does what is left of another file.
    own = left.name.split(".")
    stays = {tmp_path / ".".join([*own[:-3], "1", *own[-2:]]), tmp_path / ".".join([*own[:-2], "1", "part"]), other}
    for name in stays:
        name.touch()
    write_json(path, 1)
    assert set(tmp_path.iterdir()) == {path, *stays}


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


def test_a_worker_of_a_script_without_the_main_guard_does_not_wait_for_its_parent(tmp_path):
    """The parent holds the lock and waits for its workers, which import the script and come to the same lock."""
    (tmp_path / "script.py").write_text(
        "from pathlib import Path\n"
        "from adatosk.utils.files import locked\n"
        "from adatosk.utils.limits import limits_named\n"
        "from adatosk.utils.parallel import WorkerPool\n"
        "with locked(Path(__file__).with_name('lock')), limits_named(), WorkerPool(2) as pool:\n"
        "    print(list(pool.map(abs, [1, 2])))\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    told, _, last = done.stderr.strip().rpartition("\n")
    assert done.returncode == 1 and "each of which begins by importing it: put what it does under if" in told
    assert last.startswith("RuntimeError: a worker process ended with exit status 1, for the reason that it states")
    assert "if __name__ == '__main__':" in last


CELLS = [
    "=1+1",
    "+1",
    "-1+1",
    "-2.5",
    "-21.2 ± 1.3",
    "@x",
    "\t=1",
    " =1",
    "'=1",
    "''=1",
    "'x",
    "x",
    "",
    "-",
    "ü=",
    '"=1"',
]


def test_exported_text_that_a_spreadsheet_would_run_has_an_apostrophe(tmp_path):
    table = pd.DataFrame({"=name": CELLS, "value": np.arange(len(CELLS)) - 3.0}, index=pd.Index(CELLS, name="@id"))
    write_csv(tmp_path / "a.csv", table)
    read = read_csv(tmp_path / "a.csv", dtype={0: str, 1: str}).fillna({"=name": "", "@id": ""})
    assert list(read.columns) == ["@id", "=name", "value"]
    assert list(read["=name"]) == list(read["@id"]) == CELLS and list(read["value"]) == list(table["value"])
    raw = pd.read_csv(tmp_path / "a.csv", dtype=str, keep_default_na=False)
    assert list(raw["'=name"])[:8] == ["'=1+1", "+1", "'-1+1", "-2.5", "-21.2 ± 1.3", "'@x", "'\t=1", "' =1"]
    assert "'=name" not in table and table["=name"].iloc[0] == "=1+1"


@pytest.mark.parametrize("seed", range(20))
def test_any_text_comes_back_from_a_table(tmp_path, seed):
    draw = np.random.default_rng(seed)
    texts = ["".join(draw.choice(list("'=+-@ \tx1.,;\"#"), draw.integers(1, 6))) for _ in range(200)]
    write_csv(tmp_path / "a.csv", pd.DataFrame({"text": texts, "other": 1}), index=False)
    assert list(read_csv(tmp_path / "a.csv", dtype=str)["text"]) == texts
    first = {text[0] for text in pd.read_csv(tmp_path / "a.csv", dtype=str)["text"] if not _is_number(text)}
    assert not first & set("=+-@\t")


def _is_number(text: str) -> bool:
    try:
        return float(text) is not None
    except ValueError:
        return False


def test_text_is_read_and_written_in_utf_8_on_every_system():
    """Where no encoding is named, Python takes the locale's; binary files have a ``b`` in their mode."""
    found = []
    for path in sorted((PROJECT / "adatosk").rglob("*.py")):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for node in (node for node in nodes if isinstance(node, ast.Call)):
            name = getattr(node.func, "attr", "")
            values = [part.value for part in node.args if isinstance(part, ast.Constant)]
            binary = any(isinstance(value, str) and "b" in value for value in values)
            opens = name == "open" and getattr(node.func.value, "id", "") not in ("os", "av", "Image")
            text = name in ("read_text", "write_text") or (opens and not binary)
            if text and "encoding" not in [word.arg for word in node.keywords]:
                found.append(f"{path.name}:{node.lineno}")
    assert found == []


def test_cards_read_the_same_in_a_locale_without_utf_8():
    code = "import json; from adatosk.datasets import *; from adatosk.datasets import DATASETS\n"
    code += "print(json.dumps([load_card(name).model_dump(mode='json') for name in DATASETS]))"
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, cwd=PROJECT)
    cards = [load_card(name).model_dump(mode="json") for name in DATASETS]
    assert json.loads(run.stdout) == cards and not json.dumps(cards, ensure_ascii=False).isascii()
