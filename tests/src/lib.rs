//! What the tests of the whole share. The tests themselves stand in `tests/tests`, one file per promise or topic.

pub mod canary;
pub mod clients;
pub mod fuzz;
pub mod linear;
pub mod peers;
pub mod process;
pub mod sim;
