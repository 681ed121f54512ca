"""Benchmarks: figures are printed, never asserted, since machines differ and are noisy."""
