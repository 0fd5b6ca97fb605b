"""Benches: simulation, chaos, and throughput of the stream."""
