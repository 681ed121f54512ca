"""A partner that is asked: limits, failures, certificates, and what came of it."""
