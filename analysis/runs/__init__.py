"""Tables in: a store's sweep or anybody's table, the conventions of N and C, and the rules that choose runs."""
