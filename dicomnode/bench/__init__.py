"""Throughput and latency against the number of model servers.

The model servers are simulated: each takes a set time for every image, one after the other,
as a processor or GPU would, in a process of its own. What is measured is everything around
them, which is the node's: balancing, waiting, and with `end_to_end` the whole way from C-STORE
to the report in a PACS. How fast a real network is on this machine it does not say.

The load is closed: as many callers as `concurrency`, each of which asks again as soon as it
has its answer. Latency therefore grows with the callers and falls with the backends.

=============  ==========================================================
`servers`      simulated model servers in child processes
`load`         callers of the serving client
`endtoend`     studies through a whole node
`table`        what was measured, as text and as figures
`plots`        the same as pictures; needs matplotlib
=============  ==========================================================
"""

from __future__ import annotations
