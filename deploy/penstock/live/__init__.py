"""The live page of a study: curves, simulations and held-out fields in a browser, running or finished.

Everything comes from the files of the run directory; the study does not know who watches it. `server` and what it
imports need Bokeh, and are imported from their files.
"""

from penstock.live.beside import LivePage

__all__ = ["LivePage"]
