"""Registers of what was done for whom, for the insurance fund to pay."""
