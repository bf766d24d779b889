"""Compiled from `serving.proto` by `python -m dicomnode.wire.compile`; not edited by hand."""
