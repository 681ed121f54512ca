"""README's two commands in clean roots of the systems that it names: make test-roots."""
