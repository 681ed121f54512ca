"""A door at which partners call: who may come in, how much, and how they are answered."""
