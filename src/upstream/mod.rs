//! The upstream: connections to it, and one transaction at a time on each.
