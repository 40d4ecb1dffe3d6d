"""Clients and parts of clients that several drivers share."""
