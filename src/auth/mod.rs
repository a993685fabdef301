//! Who a client is: AUTH, checked by ourselves or by the upstream, with
//! guessing kept slow.

pub mod known;
