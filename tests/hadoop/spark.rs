//! Spark on Granary: formats, ways of saving, committers, and DataNodes and jobs that die.
