"""Studies under Slurm: one job for the server, which submits and watches the workers' jobs, or one job for both.

Commands import what they need from its files, so that `penstock status` does not import what `penstock submit` needs.
"""

__all__: list[str] = []
