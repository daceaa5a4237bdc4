//! One task per WebSocket: drains its outbox, reads within limits, pings, closes with a code.
