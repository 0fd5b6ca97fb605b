"""The whole wheel in memory and virtual time, played from one seed."""
