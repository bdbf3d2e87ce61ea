"""Each transport passes the suite in `conformance`."""

import pytest

pytest.register_assert_rewrite("tests.transports.conformance")
