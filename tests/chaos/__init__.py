"""kill -9 of everything, while load flows: real processes, real sockets, one seed."""
