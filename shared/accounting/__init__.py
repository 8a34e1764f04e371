"""The database that the services share: who may spend how much, and what was spent."""
