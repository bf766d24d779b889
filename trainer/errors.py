"""Every error that ends a command of the trainer.

::

    DicomnodeError
    └── TrainerError         the command failed                              exit code 1
        ├── UsageError           an option cannot be used as it was given    exit code 2
        ├── DataError            the folder or its manifest cannot be used   exit code 1
        ├── WeightsError         the weights do not fit the network          exit code 1
        ├── RegistryError        the model directory cannot be changed       exit code 1
        ├── StorageFull          no space left; nothing was published        exit code 1
        ├── PeerLost             another worker is gone; start all again     exit code 75
        └── NothingToDo          what was asked for is so already            exit code 3
"""

from __future__ import annotations

from dicomnode.errors import DicomnodeError


class TrainerError(DicomnodeError):
    """The command failed."""

    code = "trainer"
    exit_code = 1


class UsageError(TrainerError):
    """An option cannot be used as it was given."""

    code = "usage"
    exit_code = 2


class DataError(TrainerError):
    """The training folder or its manifest cannot be used."""

    code = "data"


class WeightsError(TrainerError):
    """The weights do not fit the network, or cannot be had."""

    code = "weights"


class RegistryError(TrainerError):
    """The model directory cannot be read or changed."""

    code = "registry"


class StorageFull(TrainerError):
    """No space is left where the run writes; nothing was published."""

    code = "storage_full"


class PeerLost(TrainerError):
    """Another worker of the same run is gone, or was never there.

    All workers have to start again together; they continue from the last checkpoint. The exit
    code is EX_TEMPFAIL of sysexits.h: a cluster tells by it what is worth another try.
    """

    code = "peer_lost"
    exit_code = 75


class NothingToDo(TrainerError):
    """What was asked for is so already."""

    code = "nothing_to_do"
    exit_code = 3
