"""What every test gets: deterministic property tests that do not measure time."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The machine that runs the tests may be slow or busy: no example fails for the time it took.
settings.register_profile(
    "streamflow",
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("streamflow")
