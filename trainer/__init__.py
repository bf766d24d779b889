"""The training program: from a folder of films to a published model version.

Imports go downward only; `|` separates siblings that do not know each other::

    cli
    retrain | submit | launch        the monthly run; the cluster's Job; several processes here
    fit | gate                       what one training run does; whether a candidate may serve
    train | evaluate | export | registry | audit
    networks
    features | data | cluster | dropout
    config
    errors

It shares `dicomnode.imaging` (the preprocess profile), `dicomnode.modelcard` and the read
side of `dicomnode.storage` with the node; `dicomnode.testing` gives it phantoms for warm-up
requests. TensorFlow is imported inside the functions that need it, so that help, the
registry and a wrong option answer at once.
"""
