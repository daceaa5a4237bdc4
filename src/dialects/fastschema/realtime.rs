//! Realtime: parameters → subscription; events → messages.
