"""The backends, one module or package for each; loaded by entry point, never by name."""
