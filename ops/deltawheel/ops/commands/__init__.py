"""One module per command; each is light to import."""
