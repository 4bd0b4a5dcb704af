"""What libraries print at start that no user of a run can act on."""

import logging

_QUIET = ("ray._private.authentication.authentication_token_setup",)


def quiet_libraries() -> None:
    """Turn off progress bars of small local files and notices about settings the driver makes itself."""
    # Deferred: refusals of a configuration must not wait for it.
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    # A filter, because importing the library sets the level; imported in the driver only by transformers.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
