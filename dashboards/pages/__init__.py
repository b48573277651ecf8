"""The pages of the app, a file each; shell.py is the frame around them and lists them.

A page has PATH, TITLE, STATE (what its address holds, with defaults), ``layout(live, state)`` and
``register(app, live)``, which adds its callbacks. An input whose value belongs into the address has the id
``{"state": NAME}`` and holds it in ``value``: the frame writes the address. A page whose inputs take some values
alone has ``unread(live, state)``: what an address asks for that there is not, by name, with what is allowed; the frame
says so and gives ``layout`` the default in its place. Names of pages differ where they are an
Output of a callback, for Dash misses a callback's other outputs while another page is shown.
"""
