//! A small HTTP and WebSocket client for commands and key sets.
