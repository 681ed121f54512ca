"""The router daemon: a pure core, a store, and a thin shell around them."""
