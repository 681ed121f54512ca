"""What several connectors use: cached lookups, code lists, documents, vocabularies."""
