"""Built-in Python solvers of problems from the literature, and their numerical methods."""

__all__: list[str] = []
