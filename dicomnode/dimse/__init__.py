"""The DICOM network: the only package that speaks DIMSE.

Receives instances (`scp.StorageScp`) and sends documents (`scu.DimseDestination`).
The acceptor's side of the upper layer (PS3.8) is our own, because an image has to go
from the socket to the disk without being held, decoded or encoded again; the requestor's
side is pynetdicom's. What a peer sends is checked here, at the edge: past `accept`,
UIDs are UIDs and files are complete. Pixel data is never looked at.

::

    scp          listens, one thread per association
    association  the upper layer's states for one peer (PS3.8 9.2)
    ├── associate, admission   what was proposed, what we answer
    ├── inflow, p_data         bytes -> PDUs -> fragments, bounded
    ├── message, command       fragments -> command sets and data sets (PS3.7)
    └── store, verification    what a message is answered with
        └── part_ten, header, uid
    scu          associations that we request
"""

from dicomnode.dimse.scp import StorageScp

__all__ = ["StorageScp"]
