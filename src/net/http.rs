//! HTTP/1.1 over TCP and over the owner's socket: accept, bound, hand on, drain.
