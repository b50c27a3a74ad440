"""Images of steps, assembled and pushed without a container engine (DESIGN §6)."""
