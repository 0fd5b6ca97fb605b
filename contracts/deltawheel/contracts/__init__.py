"""What every process of a wheel agrees on: records, ids, topics, ports, errors, settings.

Nothing here knows a vendor, so that any process can import it in a few milliseconds.
"""
