"""Where images are kept: any registry over the OCI distribution API, or an OCI layout on disk."""
