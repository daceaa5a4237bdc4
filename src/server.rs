//! Wires everything together; the only file that knows all layers.
