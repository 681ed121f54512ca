"""Somebody as a hospitals' system tells of him, within what an answer on the bus may hold."""

from typing import Any

import msgspec

from proto import clinical


def patient_of(**told: Any) -> clinical.Patient | None:
    """Return somebody with all that fits: a number of 500 characters in one field is no reason to
    answer nothing, nor to pass it on to whoever refuses it. None when the id itself does not."""
    known = {key: value for key, value in told.items() if value is not None}
    try:
        return msgspec.convert(known, clinical.Patient)
    except msgspec.ValidationError:
        pass  # seldom; then each field alone
    kinds = {field.name: field.type for field in msgspec.structs.fields(clinical.Patient)}
    fitting = {key: value for key, value in known.items() if _fits(value, kinds[key])}
    return msgspec.convert(fitting, clinical.Patient) if "id" in fitting else None


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True
