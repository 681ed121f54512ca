"""The journal: what is accepted, what is open, what became of it. Nothing else knows SQL."""
