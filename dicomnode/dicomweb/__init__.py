"""The DICOMweb rim: delivery by STOW-RS (PS3.18 10.5).

The only home of dicomweb-client. Documents go out as they lie on disk.
"""

from dicomnode.dicomweb.stow import DicomwebDestination

__all__ = ["DicomwebDestination"]
