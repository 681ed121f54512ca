"""What every simulator stands on: faults on demand, a ledger, made-up people."""
