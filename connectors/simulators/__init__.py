"""The partners played by programs, and what plays with them: demo and drill. No product."""
