//! JSON from outside: parsed strictly, duplicate keys refused.
