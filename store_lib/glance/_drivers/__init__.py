"""What Glance knows of each type of store, by the names of glance_store's modules."""
