"""Time, randomness and a store for simulations: a whole run is a function of its seed."""
