"""Any container registry that speaks the OCI distribution API."""
