"""``python -m streamflow.cli`` is the command ``streamflow``."""

from __future__ import annotations

from streamflow.cli import main

if __name__ == "__main__":
    main()
