"""Decoding in a child process, because codecs crash and pixel data comes from outside.

Adapter of `ports.Preparer`. One child per slot decodes one image at a time, with bounded
memory and time; a crash, a hang or an exhausted limit costs one image, never the node.
A child ends by itself when its node ends (end of file on its standard input) and after
some idle seconds, to give its memory back; the next image starts another.

============  ================================================================
`protocol`    frames on the pipes: a JSON header and raw arrays, no pickle
`child`       the process: `python -m dicomnode.sandbox.child`
`decoder`     one child as its parent sees it
`preparer`    `SandboxPreparer`: slots for several worker threads
`inprocess`   `InProcessPreparer`: the same contract without a child
============  ================================================================
"""

from __future__ import annotations

from dicomnode.sandbox.preparer import SandboxPreparer

__all__ = ["SandboxPreparer"]
