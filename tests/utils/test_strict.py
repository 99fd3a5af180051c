"""JSON and YAML that two readers could take for different things are refused."""

import json

import pytest
import yaml

from adatosk.config import RunConfig
from adatosk.presets import PROFILES
from adatosk.utils.files import sealed, unsealed, write_json
from adatosk.utils.provenance import read_metrics
from adatosk.utils.strict import parse_json, parse_yaml

TWICE = "the field 'a' stands twice"
WRONG = {
    b'{"a": 1, "a": 1}': TWICE,
    b'[{"b": {"a": 1, "b": 2, "a": 3}}]': TWICE,
    b'{"a": 1, "\\u0061": 2}': TWICE,
    b'{"a": NaN}': "NaN is no number",
    b"[-Infinity]": "-Infinity is no number",
    b'{"a": 1,}': "invalid JSON: .* line 1",
    b"{'a': 1}": "invalid JSON: .* line 1",
    b"": "invalid JSON: .* line 1",
    '{"a": 1}'.encode("utf-16"): "not text in UTF-8",
    b"[" * 200_000: "nested too deeply",
    b'{"a": ["\\ud83d"]}': "half a surrogate pair",
    b'{"\\uDE00": 1}': "half a surrogate pair",
}


@pytest.mark.parametrize(("content", "said"), WRONG.items())
def test_json_that_is_ambiguous_or_none_is_refused(content, said):
    with pytest.raises(ValueError, match=said):
        parse_json(content)


def test_plain_json_is_read_as_python_reads_it():
    content = {"a": [1, 2.5, None, True, {"a": "ä😀", "b": {}}], "b": {"a": 1}}
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(content).encode()) == content


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3\n", "x:\n  - {a: 1, a: 1}\n", "'a': 1\na: 2\n"])
def test_yaml_with_a_field_twice_is_refused(text):
    with pytest.raises(yaml.YAMLError, match=TWICE):
        parse_yaml(text)


def test_plain_yaml_is_read_as_pyyaml_reads_it():
    text = "a: [1, x]\nb: &one {a: 1}\nc: *one\n1: {a: 2, b: null}\n"
    assert parse_yaml(text) == yaml.safe_load(text)


def test_a_field_that_stands_twice_is_told_with_the_file(tmp_path):
    """A configuration, a run's scores, and a cache's plan, which is damaged then."""
    for name, text in {
        "run.json": '{"seed": 1, ' + PROFILES["smoke"].model_dump_json()[1:],
        "metrics.json": '{"last": {}, "last": {}}',
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=rf"{name}: .*the field '\w+' stands twice") as error:
            (RunConfig.read if name == "run.json" else read_metrics)(tmp_path / name)
        assert "\n" not in str(error.value)
    plan = tmp_path / "plan.json"
    write_json(plan, sealed({"clips": 2}))
    assert unsealed(plan) == {"clips": 2}
    plan.write_text(plan.read_text().replace('"clips"', '"clips": 3, "clips"'))
    assert unsealed(plan) is None
