"""Photos -> masks, by clicks in the browser: `mis-jax annotate`.

In:   a folder, list or glob of images, and the run whose model answers; without one, that which
      comes with the package does (`mis_jax.Predictor()`).
Out:  OUTPUT/masks/NAME.png, 255 on the object and 0 elsewhere, as large as the upright photo.

Begin with session.py; server.py is the web application and the command, page.* what the browser
gets.
"""
