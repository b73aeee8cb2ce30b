"""The API: a handler parses, calls the service once, and shows the answer."""
