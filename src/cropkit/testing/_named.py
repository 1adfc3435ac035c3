"""The module that pytest collects; ``python -m cropkit.testing`` puts the class of tests here."""

from cropkit.testing import BackendTests

TestNamed: type[BackendTests]
