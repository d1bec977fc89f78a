//! datanode: see docs/ARCHITECTURE.md.
