//! A place in the log as clients hold it: opaque to them, checked by the server alone.
