"""The pure state machine of the router: no I/O, no clock, no locks, no randomness of its own."""
