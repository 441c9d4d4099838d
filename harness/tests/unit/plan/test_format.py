import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

import jsonschema
import pytest

from harness.plan import format
from harness.plan.schema import COUNTERS, MODULE, POLICY, SCHEMA, TABLES

CHECKOUT = Path(__file__).parents[4]
PLANS = sorted(CHECKOUT.glob("testplans/*.toml"))


@pytest.mark.parametrize(
    ("file", "text"),
    [(format.MARKDOWN_FILE, format.markdown), (format.SCHEMA_FILE, format.json_schema)],
)
def test_the_committed_documentation_is_the_generated_one(file, text):
    """Write it with `odp-harness plan-format`. Mutation: change the text of a key."""
    assert (CHECKOUT / file).read_text() == text()


def test_every_key_and_every_name_has_a_sentence():
    """Mutation: add a key without a text, or a mapping without one."""
    for name, key in {**SCHEMA, **MODULE, **POLICY}.items():
        assert key.text.endswith("."), name
        assert not isinstance(key.names, Mapping) or all(key.names.values()), name
    assert all(text.endswith(".") for text in (*COUNTERS.values(), *TABLES.values()))
    text = format.markdown()
    for name in (*SCHEMA, *MODULE, *POLICY):
        last = name.rpartition(".")[2]
        assert f"| `{last}` |" in text or f"| `{name.removeprefix('full.')}` |" in text, name


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(format.json_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_plan_is_valid_by_the_json_schema(path, validator):
    """Mutation: leave a key out of SCHEMA's tables in plan/format.py."""
    validator.validate(tomllib.loads(path.read_text()))


@pytest.mark.parametrize(
    "text",
    [
        'workload.operation = "write"',
        'title = "t"\nfaults.how = "none"',
        'title = "t"\nworkload.rounds = 0',
        'title = "t"\nmatrix.rounds = [0]',
        'title = "t"\nworkload.local.mapping = "tape"',
        'title = "t"\n[[rules]]\nkind = "drop-event"\nopcode = "CREATE_QP"',
        'title = "t"\n[[rules]]\nkind = "lose-command"',
        'title = "t"\nneeds = []',
        'title = "t"\nexpect.latency.fault_p98_ns = 1',
        'title = "t"\n[module]\npolicies = [{ delay_ms = 7 }]',
    ],
)
def test_a_plan_that_the_parser_refuses_is_not_valid(text, validator):
    """Mutation: allow additional properties in a table."""
    assert not validator.is_valid(tomllib.loads(text))
