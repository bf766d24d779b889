"""dicomnode: a DICOM/PACS-integrated inference service for hospital edge clusters.

Investigational, not for diagnostic use.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("dicomnode")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0.0.0"
