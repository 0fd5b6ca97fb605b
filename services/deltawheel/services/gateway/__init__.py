"""Gateway: accepts prompts over HTTP and serves what the store holds."""
