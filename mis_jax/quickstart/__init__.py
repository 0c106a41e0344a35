"""The whole flow in minutes, on pictures that ship with it: `mis-jax quickstart`.

In:   nothing.
Out:  OUTPUT/report.html, and all that it is made of: images, records, run, results.json.

Begin with quickstart.py.
"""
