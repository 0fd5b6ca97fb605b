"""Services as the bench runs them: the product's own handlers and loop, with other adapters."""
