//! kvserve: see docs/ARCHITECTURE.md.
