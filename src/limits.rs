//! Every bound, with its unit in its name, its default and its reason.

use std::time::Duration;

/// SEMANTICS of each bound stand beside it; all can be set (see `config.rs`).
#[derive(Clone, Debug)]
pub struct Limits {
    /// A stored record, as JSON: what one frame must be able to carry.
    pub record_bytes: usize,
    /// A request body.
    pub body_bytes: usize,
    /// Records one write may touch, consequences included.
    pub write_records: usize,
    /// States (before and after) one write may hold.
    pub write_bytes: usize,
    /// Largest `limit` of a list.
    pub page_records: u64,
    /// Default `limit`.
    pub page_default: u64,
    /// Largest offset a list may skip.
    pub page_offset: u64,
    pub select_entries: usize,
    pub select_hops: usize,
    pub filter_depth: usize,
    pub filter_nodes: usize,
    pub filter_elements: usize,
    pub filter_bytes: usize,
    pub filter_hops: usize,
    /// A read is interrupted after this.
    pub read_time: Duration,
    pub head_time: Duration,
    pub body_time: Duration,
    pub idle_time: Duration,
    /// The largest message read from a native client.
    pub message_bytes: usize,
    /// Messages read from a native client a second; the rest waits in the socket.
    pub messages_per_second: u32,
    /// Writes waiting for the writer; beyond it 503.
    pub waiting_writes: usize,
    /// Reads waiting for a reader; beyond it 503.
    pub waiting_reads: usize,
    /// Frames one connection may have waiting.
    pub outbox_frames: usize,
    /// Bytes one connection may have waiting.
    pub outbox_bytes: usize,
    /// Records in one message; longer ones are cut.
    pub message_records: usize,
    /// Bytes in one message; longer ones are cut between records.
    pub frame_bytes: usize,
    /// Open connections, all clients together.
    pub connections: usize,
    /// Open connections of one address or user (loopback and admins exempt).
    pub connections_per_client: usize,
    /// Handshakes under way at once, per address (loopback exempt).
    pub handshakes_per_client: usize,
    /// The server pings every so often; dead after two missed.
    pub ping_every: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            record_bytes: 1 << 20,
            body_bytes: 8 << 20,
            write_records: 10_000,
            write_bytes: 64 << 20,
            page_records: 1_000,
            page_default: 10,
            page_offset: 1_000_000,
            select_entries: 64,
            select_hops: 2,
            filter_depth: 16,
            filter_nodes: 256,
            filter_elements: 1_000,
            filter_bytes: 16 << 10,
            filter_hops: 3,
            read_time: Duration::from_secs(5),
            head_time: Duration::from_secs(10),
            body_time: Duration::from_secs(30),
            idle_time: Duration::from_secs(60),
            message_bytes: 64 << 10,
            messages_per_second: 20,
            waiting_writes: 1_024,
            waiting_reads: 256,
            outbox_frames: 1_024,
            outbox_bytes: 4 << 20,
            message_records: 1_000,
            frame_bytes: 1 << 20,
            connections: 50_000,
            connections_per_client: 1_000,
            handshakes_per_client: 100,
            ping_every: Duration::from_secs(25),
        }
    }
}
