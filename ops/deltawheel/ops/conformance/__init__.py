"""The conformance card: what a judge is good for, measured on anchor cases."""
