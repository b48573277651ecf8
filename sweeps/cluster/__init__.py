"""Ray: connection, workers and gangs. The only folder that imports ray."""
