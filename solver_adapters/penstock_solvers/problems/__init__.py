"""Built-in solvers of the papers' problems, and the numerical methods they are made of."""

__all__: list[str] = []
