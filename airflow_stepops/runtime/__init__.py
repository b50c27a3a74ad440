"""What runs inside a step's image: the standard library, blake3, cloudpickle and obstore, nothing else."""
