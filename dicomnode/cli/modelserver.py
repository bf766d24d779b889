"""`dicomnode model-server`: the embedded model server, with TF Serving's flag names."""

from __future__ import annotations

import typer

from dicomnode.errors import ConfigError


def model_server(context: typer.Context) -> int:
    """Serve a model directory with TF Serving's API (needs the `model` extra)."""
    try:
        from dicomnode.modelserver.main import main
    except ImportError as error:
        raise ConfigError(
            [f"the model server needs the `model` extra: pip install 'dicomnode[model]' ({error})"]
        ) from error
    return main(list(context.args))
