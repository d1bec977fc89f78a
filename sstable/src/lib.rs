//! sstable: see docs/ARCHITECTURE.md.
