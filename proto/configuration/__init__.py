"""The configuration, read in one way by everybody: the router, the connectors, and the tables that
a region may change.

Each value is read as the type that its setting is declared with, a mistake is one sentence with the
file, the line and what was probably meant, and each setting knows where it was set.
"""
