"""How long the audit takes over a store of a given size."""
