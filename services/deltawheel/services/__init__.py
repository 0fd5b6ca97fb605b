"""The six processes of a wheel. They meet on topics and in the store, never by import."""
