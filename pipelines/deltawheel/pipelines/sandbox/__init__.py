"""The builder of the sandbox's models; run when its recipe changes, never by the wheel itself."""
