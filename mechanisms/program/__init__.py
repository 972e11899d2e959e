"""Any Pyro program as a mechanism."""
