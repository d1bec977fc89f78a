//! mount: see docs/ARCHITECTURE.md.
