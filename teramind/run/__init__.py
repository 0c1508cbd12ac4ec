"""What the workflow asks around its jobs: before any, around each, and for the record."""
