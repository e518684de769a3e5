import pytest

from system import all_in_one


@pytest.fixture(scope="session")
def quire(tmp_path_factory):
    """`quire serve` with SmolLM2, shared by the tests of a file."""
    with all_in_one(tmp_path_factory.mktemp("data")) as system:
        yield system
