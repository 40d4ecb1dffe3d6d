"""The engine: uploads and reads of objects, with retries, timeouts and a memory limit."""
