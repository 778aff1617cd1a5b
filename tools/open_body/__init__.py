"""Build steps of the built-in body; `tools/build_open_body.py` runs them in order."""
