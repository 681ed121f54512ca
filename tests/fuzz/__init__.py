"""Mutated inputs for everything that reads what others wrote: deterministic, each one to be run
again alone by target, seed and number."""
