"""What runs inside a step's image: the standard library, obstore and cloudpickle, nothing else."""
