"""Check the library's own errors, with the test-time type checks out of their way."""

from contextlib import contextmanager

import jaxtyping
import pytest


@contextmanager
def refuses(name: str, error: type[Exception] = ValueError):
    """Expect `error` with the text "name: expected ..., got ...; what to do"."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(error, match=rf"(?s)^{name}: expected .+, got .+; .+"):
            yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
