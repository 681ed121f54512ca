"""The register of medical workers (РМР), played by a program."""
