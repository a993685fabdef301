//! Who a client is: AUTH, checked by ourselves or by the upstream, with
//! guessing kept slow.

mod guard;
pub mod hash;
pub mod known;
pub mod users;
