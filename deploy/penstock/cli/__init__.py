"""The commands of `penstock`, a file for each group of them."""

__all__: list[str] = []
