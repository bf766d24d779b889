"""Says what is missing or wrong, before a modality or the night shift finds out.

Looks and asks, beside a running node or before the first start: it writes nothing but a
probe file that it removes, makes no store, and changes no schema.

=============  ==========================================================
`findings`     what a look comes to
`store`        folder, free space, file system, database
`models`       cards on disk, model servers and what they serve
`peers`        destinations, ports, the running node's own opinion
`machine`      clock, limits, temporary space, user, decoders
`examination`  all of them, in the order in which they are told
=============  ==========================================================
"""

from __future__ import annotations

from dicomnode.doctor.examination import examine
from dicomnode.doctor.findings import Finding, Verdict

__all__ = ["Finding", "Verdict", "examine"]
