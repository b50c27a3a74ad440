"""Where images are kept: any registry over HTTP, or a folder in the OCI image layout."""
