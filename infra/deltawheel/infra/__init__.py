"""Adapters: everything that knows a vendor, a file or the clock. `wiring` builds them."""
