"""A projection passes on the named fields of a body and no others."""

import pytest

from router.core.projection import Projection

pytestmark = pytest.mark.fault("S10")


@pytest.mark.parametrize(
    ("paths", "body", "passed"),
    [
        (["id112"], b'{"id112":"1","name":"x"}', b'{"id112":"1"}'),
        (["a.b"], b'{"a":{"b":1.50,"c":2},"b":3}', b'{"a":{"b":1.50}}'),
        (["a.b"], b'{"a": [{"b":1,"c":2},{"c":3},4]}', b'{"a":[{"b":1},{}]}'),
        (["a.b", "a"], b'{"a":{"b":1,"c":2}}', b'{"a":{"b":1,"c":2}}'),
        (["a", "z.y"], b'{"a":12345678901234567890123}', b'{"a":12345678901234567890123}'),
        (["a.b"], b'{"a":"secret"}', b"{}"),
        (["a"], b'["a"]', b"{}"),
        (["a"], b"no JSON", b"{}"),
        (["a"], b"", b"{}"),
        (["a"], b'{"a":"\xff","b":1}', b'{"a":"\xff"}'),  # byte for byte: the consumer refuses it
        (["a"], b'{"a":1', b"{}"),
        (["a"], b'{"a":1}{"b":2}', b"{}"),
    ],
)
def test_only_named_fields_pass(paths: list[str], body: bytes, passed: bytes) -> None:
    """A whole card went to who needs a telephone; only what is named may leave."""
    assert Projection(paths).body(body) == passed
