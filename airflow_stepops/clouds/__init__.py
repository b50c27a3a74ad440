"""One folder for each cloud: its step operator, container registry and artifact store."""
