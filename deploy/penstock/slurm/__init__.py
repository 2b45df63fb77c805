"""Studies under Slurm: a job for the server, which submits and looks after the jobs of the workers, or has them in it."""
