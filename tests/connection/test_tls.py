"""TLS over a socket of our own: against a server that knows nothing of it."""
