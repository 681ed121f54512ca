"""Attacks of every kind on a running bus, beside a good peer that must not notice: real processes,
real sockets, harmless inputs."""
