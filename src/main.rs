//! The `mailonce` command.
fn main() {}
