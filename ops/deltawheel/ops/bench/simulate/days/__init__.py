"""Many virtual days: cycles, promotions, rollbacks by hand, drift, and an outage a day."""
