"""Images of steps, assembled in this process and put into a registry without a container engine."""
