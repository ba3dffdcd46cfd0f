"""From chapters to the site: plan, execute, build, check.

Chapters are MyST notebooks in ``notebooks/``. papermill executes them into ``_build/store/<key>.ipynb``; the key covers
everything a result depends on, so prose never re-runs anything. Sphinx only reads the results.
"""
