"""The numbers by which systems know a call: any of them finds it (`smpbus trace NUMBER`).

They travel in the envelope's `correlation_id`, with spaces between, so that the journal keeps and
indexes them without knowing what they mean. Ids of systems only, nothing that names a person.
"""


def numbers(*given: str | None) -> str | None:
    """Return the correlation_id of what is known by these numbers; None when there are none."""
    known = dict.fromkeys(one for one in given if one and not any(map(str.isspace, one)))
    return " ".join(known) or None
