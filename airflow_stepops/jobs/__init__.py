"""One job per attempt: the protocol of a service, names, the ledger, the watcher, the kinds of end."""
