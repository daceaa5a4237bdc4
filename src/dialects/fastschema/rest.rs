//! REST: method, path and body → call; answer → JSON.
