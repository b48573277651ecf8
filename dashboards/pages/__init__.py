"""The pages of the app, a file each; shell.py is the frame around them and lists them.

A page has PATH, TITLE, STATE (what its address holds, with defaults), ``layout(live, state)`` and
``register(app, live)``, which adds its callbacks. An input whose value belongs into the address has the id
``{"state": NAME}`` and holds it in ``value``: the frame writes the address. Names of pages differ where they are an
Output of a callback, for Dash misses a callback's other outputs while another page is shown.
"""
