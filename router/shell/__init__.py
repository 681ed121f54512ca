"""The thin shell around the core: sockets, time, threads, signals."""
