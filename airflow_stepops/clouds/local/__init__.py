"""This machine as a cloud: files, an OCI layout, and a process that sees only the layers of its image."""
