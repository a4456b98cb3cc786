"""Load the model bundle that the settings name."""

from __future__ import annotations

from interest.settings import Settings
from interest_cli.replay import LoadedBundle


def load_bundle(settings: Settings) -> LoadedBundle:
    """Load the text model, build both encoders and warm them.

    Raises:
        EncoderUnavailable: the model cannot be loaded; the text says what to do.
    """
    # torch and transformers take seconds to import; commands that encode nothing do without.
    from encoder.factory import load_encoders

    encoders = load_encoders(settings)
    encoders.warm()
    return LoadedBundle(encoders.bundle, encoders.items, encoders.users, encoders.sparse)
