"""The lookup layer: cached questions of all connectors, memcached first, then the partner."""

from connectors.services.lookup.kind import (
    CODE_LIST,
    INSURANCE,
    INSURED,
    NUMBER,
    PATIENT,
    PATIENTS,
    SUMMARY,
    WORKER,
    CodeList,
    Insurance,
    Kind,
)
from connectors.services.lookup.lookup import Lookup, LookupSettings

__all__ = [
    "CODE_LIST",
    "INSURANCE",
    "INSURED",
    "NUMBER",
    "PATIENT",
    "PATIENTS",
    "SUMMARY",
    "WORKER",
    "CodeList",
    "Insurance",
    "Kind",
    "Lookup",
    "LookupSettings",
]
