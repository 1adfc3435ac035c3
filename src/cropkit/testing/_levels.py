"""All levels of the suite in one class."""

from cropkit.testing._bad_input import BadInputTests
from cropkit.testing._gradients import GradientTests
from cropkit.testing._masks import MaskTests
from cropkit.testing._protocol import ProtocolTests
from cropkit.testing._running import RunningTests
from cropkit.testing._search import SearchTests
from cropkit.testing._values import ValueTests


# Last to first, since pytest runs the tests of the last base class first.
class BackendTests(
    SearchTests, BadInputTests, RunningTests, GradientTests, ValueTests, MaskTests, ProtocolTests
):
    """Base class of a backend's tests.

    Derive a class whose name pytest collects, and set `backend`; the class inherits the tests.
    A test is skipped, with the reason, if the backend refuses its calls or has no gradients;
    a backend that refuses every call fails.

    Attributes
    ----------
    backend : str or Backend
        The name under which it is registered, or the object.
    tolerance : float, default 0.0
        For a backend that is not `exact`: the largest error allowed, in units of the largest
        magnitude that goes into a value. Which samples are inside, nearest, and extrapolated
        pixels are always compared exactly.
    module : str, optional
        The module that is imported to find the backend; by default that of the entry point,
        or of the object's class.

    Notes
    -----
    For a backend whose arrays are not NumPy's, override `to_device`, `from_device` and, if
    its device has streams, `stream`. All tests then run on the arrays of that library.

    Expected values are worked out by hand, or computed by the backend ``reference``.

    Examples
    --------
    >>> from cropkit.testing import BackendTests
    >>> class TestMine(BackendTests):
    ...     backend = "reference"
    """


LEVELS = BackendTests.__bases__[::-1]
