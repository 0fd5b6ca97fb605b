"""The sandbox world: chained arithmetic small enough to train, serve and check on a laptop."""
