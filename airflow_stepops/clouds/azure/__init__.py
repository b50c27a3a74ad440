"""Microsoft Azure: Blob Storage, Container Registry, Azure ML."""
