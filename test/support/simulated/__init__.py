"""The ledger on a simulated file system: clients, a server, an oracle, and rules to break."""
