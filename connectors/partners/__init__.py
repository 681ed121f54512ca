"""The connectors: one folder for each partner system, with the same files in each."""
