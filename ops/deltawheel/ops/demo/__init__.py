"""The demonstration: one whole turn of the wheel on the sandbox world."""
