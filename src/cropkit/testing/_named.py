"""What pytest collects for ``python -m cropkit.testing``, which puts the class here."""

from cropkit.testing import BackendTests

TestNamed: type[BackendTests]
