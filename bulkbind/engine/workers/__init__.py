"""Send by several processes: the driver's side (`hub`), the worker's, and what is between them.

Binds alone are sent by workers: what is claimed, when a request may leave, with which credential,
and what follows from its answer, is decided in the driver as if it had sent itself. So one process
writes the ledger, meets the limit, renews the session and reads lists.

**The lease is the promise**: a worker sends only within `LEASE_S` of the moment at which it *asked*
for its last lease, by its own clock, so that no delay lengthens it; and only while the driver that
ordered it is alive. Whoever is silent beyond that is buried: its permits come back, its rows are in
doubt, and no list counts as proof of absence before lease, time-out and `readback_settle` have
passed.
"""
