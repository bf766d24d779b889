"""The training program: from a folder of films to a published model version.

Imports go downward only; `|` separates siblings that do not know each other::

    cli
    retrain | launch                            later: the monthly run, the cluster's Job
    fit                                         what one training run does, step by step
    train | evaluate | export | registry
    networks
    features | data | cluster
    config
    errors

It shares `dicomnode.imaging` (the preprocess profile), `dicomnode.modelcard` and the read
side of `dicomnode.storage` with the node; `dicomnode.testing` gives it phantoms for warm-up
requests. TensorFlow is imported inside the functions that need it, so that help, the
registry and a wrong option answer at once.
"""
