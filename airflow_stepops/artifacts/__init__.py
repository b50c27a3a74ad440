"""Values that steps return, in the artifact store: the store, references to values, materializers."""
