"""Studies under Slurm: one job for the server, which submits and watches the jobs of workers, or one job for both.

Everything that knows Slurm is here and in `penstock.cli.slurm`. Commands import what they need from the files, so that
`penstock status` does not import what `penstock submit` needs.
"""

__all__: list[str] = []
