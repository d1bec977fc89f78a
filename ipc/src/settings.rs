//! What a server bounds, and by how much.

/// The bounds of a port. What one port can be made to hold is, in all, `calls_in_flight_max` calls and their
/// futures, `buffered_bytes_max` of large frames, and for each connection a small buffer and `unsent_bytes_max`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of a frame; a connection that announces a larger one is closed. Memory is taken as the bytes come.
    pub frame_bytes_max: usize,
    /// Bytes of all frames together that do not fit a connection's small buffer; a connection that would exceed it is
    /// closed.
    pub buffered_bytes_max: usize,
    /// Connections at one time; those beyond it are closed when they are accepted.
    pub connections_max: usize,
    /// Calls in flight of all connections; no more are read until one is answered.
    pub calls_in_flight_max: usize,
    /// Calls in flight of one connection; no more are read until one is answered.
    pub connection_calls_in_flight_max: usize,
    /// Answers of one connection that wait to be sent, in bytes; no more calls are read until the client has read some.
    /// Answers to calls in flight still come on top.
    pub unsent_bytes_max: usize,
    /// How long a connection may take to say who it is, in milliseconds.
    pub handshake_ms: u64,
    /// How long a connection may take for the rest of a frame that it began, or for reading an answer, in milliseconds.
    pub stalled_ms: u64,
    /// How long a connection may be silent with no call in flight, in milliseconds.
    pub idle_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // The largest of real requests, a concat of ten thousand files, takes about 1 MiB; decoded, a hostile frame takes
            // up to a hundred times its bytes.
            frame_bytes_max: 4 << 20,
            buffered_bytes_max: 256 << 20,
            connections_max: 16_384,
            calls_in_flight_max: 16_384,
            connection_calls_in_flight_max: 1_024,
            unsent_bytes_max: 1 << 20,
            handshake_ms: 20_000,
            stalled_ms: 120_000,
            idle_ms: 30 * 60_000,
        }
    }
}
