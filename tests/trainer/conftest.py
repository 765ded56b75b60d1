"""One trained model for the tests of these folders, which none of them may change."""

import pytest

from tests.small_model import trained_model

trained = pytest.fixture(scope="session")(trained_model)
