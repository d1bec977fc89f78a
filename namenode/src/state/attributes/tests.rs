//! Attributes: rules, one claim per test.
