"""System-112, played by a program."""
