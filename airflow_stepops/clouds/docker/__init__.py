"""A container engine (Docker or Podman) as a cloud."""
