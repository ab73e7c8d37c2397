"""How a description runs: plan → fuse → stages joined by channels → one task group. See ``docs/architecture.md``."""
