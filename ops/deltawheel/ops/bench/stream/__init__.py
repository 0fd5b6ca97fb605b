"""Throughput, latency and memory of the stream."""
