"""How much of a model server's pace the wheel keeps, and what the judge reuses."""
