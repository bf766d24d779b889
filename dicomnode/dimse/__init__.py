"""The DICOM network: the only package that speaks DIMSE.

Receives instances (`scp.StorageScp`) and sends documents (`scu.DimseDestination`).
The upper layer (PS3.8) and the message exchange (PS3.7) are our own, because an image has
to go between socket and disk without being held, decoded or encoded again; the tests hold
them against pynetdicom and DCMTK. What a peer sends is checked here, at the edge: past `accept`,
UIDs are UIDs and files are complete. Pixel data is never looked at.

::

    scp          listens, one thread per association
    association  the upper layer's states for one peer (PS3.8 9.2)
    ├── associate, admission   what was proposed, what we answer
    ├── inflow, p_data         bytes -> PDUs -> fragments, bounded
    ├── message, command       fragments -> command sets and data sets (PS3.7)
    └── store, verification    what a message is answered with
        └── part_ten, header, uid
    scu          what we send
    └── requestor              the upper layer's states of an association we ask for
"""

from dicomnode.dimse.scp import StorageScp
from dicomnode.dimse.scu import DimseDestination, SendResult, echo, send_files

__all__ = ["DimseDestination", "SendResult", "StorageScp", "echo", "send_files"]
