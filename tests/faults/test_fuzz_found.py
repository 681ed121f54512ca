"""What mutated inputs found, each in its smallest form."""

import io

import pytest

from connectors.tfoms.answer import BadAnswer, read_answer


@pytest.mark.fault("fuzz")
@pytest.mark.parametrize("place", ["FLK_P", "FNAME_I", "PR", "OSHIB"])
def test_a_prefix_that_is_not_declared_is_no_answer_of_the_fund(place: str) -> None:
    """An element <x:PR> without xmlns:x ended `smpbus register answer` in a ValueError of lxml,
    whose incremental parser lets it pass; it is an answer that is no XML."""
    answer = "<FLK_P><FNAME_I>HM1</FNAME_I><PR><OSHIB>901</OSHIB><N_ZAP>1</N_ZAP></PR></FLK_P>"
    odd = answer.replace(f"<{place}>", f"<x:{place}>").replace(f"</{place}>", f"</x:{place}>")
    with pytest.raises(BadAnswer):
        list(read_answer(io.BytesIO(odd.encode())).verdicts)
    assert len(list(read_answer(io.BytesIO(answer.encode())).verdicts)) == 1
