//! namenode: see docs/ARCHITECTURE.md.
