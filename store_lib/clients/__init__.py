"""What several drivers need of one kind of server; a driver may import from here."""
