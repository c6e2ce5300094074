"""The columns of the Parquet file, and what becomes of photographs that cannot be read."""

import numpy as np
import pyarrow
import pytest

from vclip_jax.data.record import FACTS
from vclip_jax.predict.embed import columns
from vclip_jax.predict.embed.columns import Seen

SEEN = [
    Seen({"key": "a", "label": "ill", "eye": "left", "finding:AMD": 1}, "0a"),
    Seen({"key": "b"}, "0b", error="cannot read it"),
    Seen({"key": "c", "finding:AMD": None}, "0c", gate=("too dark", "field cut")),
]
VECTORS = np.array([[0.6, 0.8], [1, 0]], np.float32)


@pytest.fixture
def schema() -> pyarrow.Schema:
    return columns.schema(2, ["AMD"], captions=False)


def test_the_columns_are_named_and_typed(schema):
    assert schema.names == [
        *("key", "split", "label", "patient", *FACTS),
        *("finding:AMD", "gate", "vector"),
    ]
    assert schema.field("finding:AMD").type == pyarrow.int8()
    assert schema.field("vector").type == pyarrow.list_(pyarrow.float32(), 2)
    assert columns.texts(schema) == ["key", "split", "label", "patient", *FACTS, "gate"]


def test_captions_are_a_column_only_if_asked_for():
    assert "caption" not in columns.schema(2, [], captions=False).names
    assert columns.schema(2, [], captions=True).names[3] == "caption"


def test_the_file_has_the_rows_of_photographs_that_can_be_read(schema):
    rows = columns.kept(columns.part(SEEN, VECTORS, schema))
    assert rows.schema == schema
    first, second = rows.to_pylist()
    nothing = dict.fromkeys(schema.names)
    known = {"key": "a", "label": "ill", "eye": "left", "finding:AMD": 1, "gate": ""}
    assert first == nothing | known | {"vector": VECTORS[0].tolist()}
    assert second == nothing | {
        "key": "c",
        "gate": "too dark; field cut",
        "vector": VECTORS[1].tolist(),
    }


def test_the_others_are_listed_with_their_reasons(schema):
    rows = columns.part(SEEN, VECTORS, schema)
    assert columns.rejects(rows) == [("b", "cannot read it")]
    assert columns.rejects(columns.part(SEEN[:1], VECTORS[:1], schema)) == []


def test_a_part_may_hold_no_photograph_that_can_be_read(schema):
    rows = columns.part(SEEN[1:2], VECTORS[:0], schema)
    assert columns.kept(rows).num_rows == 0
    assert columns.kept(rows).schema == schema


def test_the_sums_are_lines_of_sha256sum(schema):
    assert columns.sums(columns.part(SEEN, VECTORS, schema)) == b"0a  a\n0c  c\n"
